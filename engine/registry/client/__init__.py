"""The distribution client: pull and push for every registry that follows the specification."""
