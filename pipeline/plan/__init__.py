"""From a definition and an event to the stages that will run: pure."""
