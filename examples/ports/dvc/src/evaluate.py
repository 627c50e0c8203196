"""Compare what the model predicts with what is right."""

import json
import sys
from pathlib import Path

model, features = map(Path, sys.argv[1:])
weights = json.loads(model.read_text())
rows = json.loads((features / "test.json").read_text())
predicted = [int(sum(w * n for w, n in zip(weights, counts)) > 0) for _, *counts in rows]
actual = [label for label, *_ in rows]
Path("eval/plots").mkdir(parents=True)
Path("eval/plots/confusion.csv").write_text(
    "actual,predicted\n" + "".join(f"{a},{p}\n" for a, p in zip(actual, predicted))
)
accuracy = sum(a == p for a, p in zip(actual, predicted)) / len(actual)
Path("eval/metrics.json").write_text(json.dumps({"accuracy": round(accuracy, 4)}))
