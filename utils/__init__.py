"""What the lessons share: one module a lesson, plus what several lessons need."""
