"""What makes a run start."""
