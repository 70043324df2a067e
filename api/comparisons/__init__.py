"""The students of one teacher, side by side."""
