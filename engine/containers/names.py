"""Ids and names of containers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container as Collection

from engine.errors import InvalidInput

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_LONGEST = 253

_MANNERS_WORDS = """
agile amber ardent bold brave breezy bright brisk calm candid careful cheerful clever cosy curious daring
deft eager earnest elated elegant fair fearless festive focused fond frank friendly gentle gifted glad
golden graceful happy hardy hearty honest hopeful humble jolly jovial keen kind lively loyal lucid mellow
merry mighty modest nimble noble patient peaceful placid polite proud quick quiet radiant ready serene
sharp silver sincere smart snug sober steady stoic sunny swift tender tidy tireless trusty upbeat vivid
warm watchful willing wise witty zealous zen
"""
_MANNERS = tuple(_MANNERS_WORDS.split())

_PEOPLE_WORDS = """
abel agnesi anning aryabhata babbage banach bardeen bell bernoulli blackwell bohr boole borg brahe
brattain brown carson cerf chandrasekhar clarke cori cray curie darwin diffie dijkstra earhart edison
einstein engelbart euclid euler faraday fermat feynman franklin galileo galois gauss goldberg goodall
gould hamilton haslett heisenberg hellman hodgkin hofstadter hopper hypatia jackson jang jemison johnson
joliot kapitsa keller kepler khorana kilby knuth kowalevski lalande lamarr lamport leavitt lehmann liskov
lovelace lumiere maxwell mayer mccarthy mcclintock meitner mendel mirzakhani moore morse napier nash
newton nightingale nobel noether pare pascal pasteur perlman pike poincare ptolemy raman ride ritchie
roentgen rosalind rubin saha sammet shannon shockley sinoussi stallman stonebraker swanson swartz tesla
tharp thompson torvalds turing varahamihira vaughan villani volhard wescoff wilbur wiles wilson wing
wozniak wright wu yalow yonath
"""
_PEOPLE = tuple(_PEOPLE_WORDS.split())


def new_id() -> str:
    """64 hexadecimal digits, the first twelve of them never all decimal.

    The short form serves as a hostname, and one that is a number is taken for an address by some programs.
    """
    while True:
        made = secrets.token_hex(32)
        if not made[:12].isdecimal():
            return made


def random_name(taken: Collection[str]) -> str:
    """Two words such as `patient_lamarr`; after many tries with a number behind them."""
    for attempt in range(64):
        name = f"{secrets.choice(_MANNERS)}_{secrets.choice(_PEOPLE)}"
        if attempt > 8:
            name += str(secrets.randbelow(10**4))
        if name not in taken:
            return name
    return f"container_{new_id()[:12]}"


def validate(name: str, what: str = "container") -> str:
    """The name without the slash that the API may put before it. Raises InvalidInput.

    The set of characters is what keeps names out of paths, logs and terminals.
    """
    bare = name.removeprefix("/")
    if len(bare) > _LONGEST or _NAME.fullmatch(bare) is None:
        shown = bare if len(bare) < 80 else bare[:80] + "…"
        raise InvalidInput(
            f"Invalid {what} name ({shown!r}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to {_LONGEST} characters"
        )
    return bare
