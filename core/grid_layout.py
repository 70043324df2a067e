"""Where the pictures lie in a sample grid, in pixels; free of torch.

Whoever shows a grid's pictures one by one cuts them out by these figures, counted from the grid's lower left
corner, for a title may lie above.
"""

CELL = 128
GAP = 6
LINE = 14
CAPTION_LINES = 3
LABEL_WIDTH = 84
