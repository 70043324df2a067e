"""The recipe of ``emoji-64``, a Stable Diffusion in miniature that draws 64x64 emoji from captions.

``python -m teachers.emoji_64.train`` runs its steps: fetch the pictures, train tokenizer, CLIP, VAE and
U-Net, assemble the pipeline folder ``weights/``, measure its quality and write its model card.
"""
