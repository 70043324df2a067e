"""What an API key looks like: ``condenser_``, 32 random characters, and 6 that check the ones before.

The prefix lets secret scanners recognise a key that was committed or pasted by mistake
(``condenser_[0-9A-Za-z]{38}``). The check tells a mistyped or cut-off key from an unknown one without asking
the database. The random part has 190 bits, so keys cannot be guessed and need no slow hash.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

PREFIX = "condenser_"
RANDOM_CHARACTERS = 32
CHECK_CHARACTERS = 6
SHOWN_CHARACTERS = len(PREFIX) + 6
"""Length of the beginning that is kept and shown; it leaves 154 bits unknown."""

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECK_CHARACTERS}}}")


def new_key() -> str:
    """Make a key from the system's randomness."""
    return key_of("".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS)))


def key_of(random: str) -> str:
    """Make the key with these random characters."""
    return PREFIX + random + _check(random)


def is_well_formed(text: str) -> bool:
    """Tell whether a text has the form of a key and its check fits."""
    if not _KEY.fullmatch(text):
        return False
    random = text[len(PREFIX) : -CHECK_CHARACTERS]
    return hmac.compare_digest(_check(random), text[-CHECK_CHARACTERS:])


def digest_of(key: str, pepper: str) -> str:
    """Make what is stored of a key: its HMAC-SHA256 under the installation's pepper, in hexadecimal.

    A copy of the database alone lets nobody check a guess.
    """
    return hmac.new(pepper.encode(), key.encode(), hashlib.sha256).hexdigest()


def masked(text: str) -> str:
    """Replace all but the shown beginning of every key in a text."""
    return _KEY.sub(lambda key: f"{key[0][:SHOWN_CHARACTERS]}…", text)


def _check(random: str) -> str:
    """CRC-32 in base 62, with leading zeros."""
    rest, characters = zlib.crc32(random.encode()), ""
    for _ in range(CHECK_CHARACTERS):
        rest, digit = divmod(rest, len(ALPHABET))
        characters = ALPHABET[digit] + characters
    return characters
