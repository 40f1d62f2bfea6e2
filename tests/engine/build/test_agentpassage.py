"""The socket that a step talks to its ssh agent through."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from engine.build.agentpassage import passage


async def test_what_is_said_reaches_the_agent_and_back(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            asked.append(data)
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    server = await asyncio.start_unix_server(agent, tmp_path / "agent")
    async with server, passage(folder / "door", tmp_path / "agent", (0, 0), 0o640):
        assert stat.S_IMODE((folder / "door").stat().st_mode) == 0o640
        (tmp_path / "short").symlink_to(folder)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "short" / "door")
        writer.write(b"sign")
        assert await reader.readexactly(4) == b"SIGN"
        writer.close()
        late, stays = await asyncio.open_unix_connection(tmp_path / "short" / "door")
    assert await late.read() == b"", "the end of the step is the end of its connections"
    stays.close()
    assert asked == [b"sign"]


async def test_an_agent_that_is_gone_ends_the_connection(tmp_path: Path) -> None:
    async with passage(tmp_path / "door", tmp_path / "nobody", (0, 0), 0o600):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "door")
        assert await reader.read() == b""
        writer.close()
