"""Count the most frequent words of each post."""

import json
import sys
from collections import Counter
from pathlib import Path

import yaml

source, folder = map(Path, sys.argv[1:])
words = yaml.safe_load(Path("params.yaml").read_text())["featurize"]["words"]
read = {
    name: [it.split("\t") for it in (source / f"{name}.tsv").read_text().splitlines()] for name in ("train", "test")
}
counts = Counter(word for _, title in read["train"] for word in title.split())
vocabulary = sorted(word for word, _ in counts.most_common(words))
folder.mkdir(parents=True)
for name, posts in read.items():
    rows = [[int(label), *(title.split().count(word) for word in vocabulary)] for label, title in posts]
    (folder / f"{name}.json").write_text(json.dumps(rows))
