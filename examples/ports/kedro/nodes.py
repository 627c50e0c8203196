"""The nodes of the pipeline: functions of tables, which know of no pipeline."""

from __future__ import annotations

import random


def _is_true(text: str) -> bool:
    return text == "t"


def preprocess_companies(companies: list[dict]) -> list[dict]:
    """Turn the texts of companies into numbers and truth values."""
    return [
        {
            "company_id": row["id"],
            "company_rating": float(row["company_rating"].rstrip("%") or 0) / 100,
            "iata_approved": _is_true(row["iata_approved"]),
        }
        for row in companies
    ]


def preprocess_shuttles(shuttles: list[dict]) -> list[dict]:
    """Turn the texts of shuttles into numbers and truth values."""
    return [
        {
            "shuttle_id": row["id"],
            "company_id": row["company_id"],
            "engines": int(row["engines"]),
            "price": float(row["price"].replace("$", "").replace(",", "")),
            "moon_clearance_complete": _is_true(row["moon_clearance_complete"]),
        }
        for row in shuttles
    ]


def create_model_input_table(shuttles: list[dict], companies: list[dict], reviews: list[dict]) -> list[dict]:
    """Join the tables on their ids."""
    by_company = {row["company_id"]: row for row in companies}
    by_shuttle = {row["shuttle_id"]: row for row in shuttles}
    joined = []
    for review in reviews:
        shuttle = by_shuttle.get(review["shuttle_id"])
        if shuttle and shuttle["company_id"] in by_company:
            rating = float(review["review_scores_rating"])
            joined.append({**by_company[shuttle["company_id"]], **shuttle, "review_scores_rating": rating})
    return joined


def split_data(data: list[dict], parameters: dict) -> tuple[list, list, list, list]:
    """Divide rows into those to learn from and those to test with."""
    rows = sorted(data, key=lambda row: row["shuttle_id"])
    random.Random(parameters["random_state"]).shuffle(rows)  # noqa: S311 - it is no secret
    count = int(len(rows) * (1 - parameters["test_size"]))
    features = [[float(row[name]) for name in parameters["features"]] for row in rows]
    prices = [row["price"] for row in rows]
    return features[:count], features[count:], prices[:count], prices[count:]


def train_model(X_train: list, y_train: list) -> dict:
    """Fit a price for each number of the first feature: a line by least squares."""
    xs = [row[0] for row in X_train]
    mean_x, mean_y = sum(xs) / len(xs), sum(y_train) / len(y_train)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, y_train)) / sum((x - mean_x) ** 2 for x in xs)
    return {"slope": slope, "intercept": mean_y - slope * mean_x}


def evaluate_model(regressor: dict, X_test: list, y_test: list) -> dict:
    """Return how much of the variance the model explains, and its largest error."""
    predicted = [regressor["intercept"] + regressor["slope"] * row[0] for row in X_test]
    mean = sum(y_test) / len(y_test)
    rest = sum((y - p) ** 2 for y, p in zip(y_test, predicted))
    return {
        "r2_score": round(1 - rest / sum((y - mean) ** 2 for y in y_test), 4),
        "max_error": round(max(abs(y - p) for y, p in zip(y_test, predicted)), 2),
    }
