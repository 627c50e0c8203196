"""Run ids that people can say: `best-hamilton-0300`, a quality, a person of science, the hour and minute (UTC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

ADJECTIVES = (
    *("able", "agile", "amber", "apt", "avid", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever"),
    *("cool", "cosmic", "crisp", "daring", "deft", "eager", "early", "easy", "epic", "exact", "fair", "fast", "fine"),
    *("firm", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "good", "grand", "great", "handy"),
    *("happy", "hardy", "honest", "humble", "ideal", "jolly", "just", "keen", "kind", "lively", "loyal", "lucid"),
    *("lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "open", "patient", "plain", "polite"),
    *("proud", "quick", "quiet", "ready", "robust", "royal", "serene", "sharp", "silent", "simple", "smart", "snug"),
    *("solid", "sound", "spry", "stable", "steady", "strong", "sunny", "sure", "swift", "tidy", "tranquil", "true"),
    *("trusty", "upbeat", "valid", "vast", "vivid", "warm", "wise", "witty", "young", "zesty"),
)
SCIENTISTS = (
    *("abel", "agnesi", "ampere", "archimedes", "babbage", "banach", "bartik", "bayes", "bell", "bernoulli", "bohr"),
    *("boole", "born", "bose", "brahe", "cannon", "cantor", "carson", "cauchy", "chandra", "church", "clarke", "cori"),
    *("curie", "darwin", "descartes", "dijkstra", "dirac", "easley", "edison", "einstein", "elion", "erdos", "euclid"),
    *("euler", "faraday", "fermat", "fermi", "fisher", "fourier", "franklin", "galileo", "galois", "gauss", "germain"),
    *("goodall", "hamilton", "hawking", "heisenberg", "hermite", "herschel", "hilbert", "hodgkin", "hopper", "hypatia"),
    *("jackson", "jacobi", "johnson", "joliot", "joule", "kalam", "keller", "kepler", "khorana", "kilby", "klein"),
    *("knuth", "kovalevskaya", "lagrange", "lamarr", "laplace", "leavitt", "leibniz", "liskov", "lovelace", "markov"),
    *("maxwell", "mayer", "mcclintock", "meitner", "mendel", "mirzakhani", "moore", "morse", "nash", "neumann"),
    *("newton", "nightingale", "nobel", "noether", "noyce", "pascal", "pasteur", "pauling", "payne", "perlman"),
    *("planck", "poincare", "poisson", "ptolemy", "raman", "ramanujan", "rhodes", "riemann", "ritchie", "rubin"),
    *("sagan", "shannon", "somerville", "swanson", "swartz", "tesla", "thompson", "torvalds", "tu", "turing"),
    *("varahamihira", "volta", "wiles", "wilson", "wing", "wozniak", "wright", "wu", "yalow", "yonath"),
)


def run_id(moment: datetime, choose: Callable[[Sequence[str]], str]) -> str:
    """A run id; `choose` picks one of several words (`random.choice`, or something that repeats itself)."""
    return f"{choose(ADJECTIVES)}-{choose(SCIENTISTS)}-{moment:%H%M}"
