"""Speed and memory of whole jobs at the size of Stable Diffusion 1.4; see ``__main__``."""
