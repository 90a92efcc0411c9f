"""ImageNet's 1,000 classes by name and synset id, as timm ships them."""

from collections import Counter
from functools import cache

from headstart.errors import ConfigError

# Two pairs of classes share a first name; these are the ones whose full name does not tell them apart either.
_SAME_NAME = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}


@cache
def labels(n_classes: int) -> tuple[tuple[str, str], ...]:
    """(synset id, name) of each class, in the order of the networks' outputs; names are distinct.

    Args: n_classes: 1000, or 1001 for networks whose class 0 is background (its id is "").
    Raises: ConfigError: another number of classes, of which no names are known.
    """
    if n_classes not in (1000, 1001):
        raise ConfigError(f"expected ImageNet's 1000 classes, or 1001 with background, found {n_classes}")
    from timm.data import ImageNetInfo  # timm takes seconds to import

    info = ImageNetInfo()
    known = [(info.index_to_label_name(i), info.index_to_description(i)) for i in range(1000)]
    first_names = Counter(_first(words) for _, words in known)
    named = [(synset, _SAME_NAME.get(synset, _first(words) if first_names[_first(words)] == 1 else words)) for synset, words in known]
    return (("", "background"), *named) if n_classes == 1001 else tuple(named)


def _first(words: str) -> str:
    return words.split(",")[0].strip()
