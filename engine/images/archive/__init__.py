"""Images as files: save and load (Docker archives, OCI layouts), import and export of plain root tars."""

from engine.images.archive.load import load
from engine.images.archive.plain import export_folder, import_tar
from engine.images.archive.save import save

__all__ = ["export_folder", "import_tar", "load", "save"]
