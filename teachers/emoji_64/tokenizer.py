"""The teacher's tokenizer: byte-pair encoding in CLIP's manner, trained on the caption grammar."""

import json
from collections.abc import Sequence

from tokenizers import AddedToken, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from teachers.emoji_64.captions import every_caption
from teachers.emoji_64.concepts import Concept

VOCABULARY_SIZE = 2_304
CONTEXT_LENGTH = 24
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(concepts: Sequence[Concept]) -> CLIPTokenizer:
    """Train the tokenizer on every caption by name and every alias.

    Raises
    ------
    ValueError
        If a caption is longer than the text encoder's context.
    """
    captions = [*every_caption(concepts), *(alias for concept in concepts for alias in concept.aliases)]
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[AddedToken(START_TOKEN, special=True), AddedToken(END_TOKEN, special=True)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    model = json.loads(backend.to_str())["model"]
    tokenizer = CLIPTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        model_max_length=CONTEXT_LENGTH,
    )
    longest = max(captions, key=lambda caption: len(tokenizer(caption).input_ids))
    if len(tokenizer(longest).input_ids) > CONTEXT_LENGTH:
        raise ValueError(f"caption {longest!r} does not fit {CONTEXT_LENGTH} tokens")
    return tokenizer
