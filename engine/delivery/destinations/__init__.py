"""Where courses end: one file a kind. `build` in each makes the destination of a course."""
