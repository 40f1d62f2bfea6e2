"""One module a kind of stage. Each has `execute(work)`: it returns the stage's outputs or raises StageFailed."""
