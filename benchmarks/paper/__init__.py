"""Experiments on the bundled teacher that show what each part of the method does; see ``__main__``."""
