"""The Linux system calls that the engine needs and Python does not have."""
