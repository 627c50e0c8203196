"""Iris classification with a logistic regression: plain scikit-learn, without any import of runnable-ci."""

from __future__ import annotations

import numpy as np
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return sepal length and width of 150 flowers, and their species."""
    iris = datasets.load_iris()
    return iris.data[:, :2], iris.target


def fit(X: np.ndarray, Y: np.ndarray, test_size: float, regularisation: float, seed: int) -> LogisticRegression:
    """Fit a classifier of the species to the training samples."""
    train_X, _, train_Y, _ = train_test_split(X, Y, test_size=test_size, random_state=seed)
    logreg = LogisticRegression(C=1 / regularisation)
    logreg.fit(train_X, train_Y)
    return logreg


def evaluate(X: np.ndarray, Y: np.ndarray, logreg: LogisticRegression, test_size: float, seed: int) -> float:
    """Return the accuracy on the test samples."""
    _, test_X, _, test_Y = train_test_split(X, Y, test_size=test_size, random_state=seed)
    score = accuracy_score(test_Y, logreg.predict(test_X))
    print(f"accuracy {score:.3f} ({len(test_Y)} test samples)")
    return score


def plot(X: np.ndarray, Y: np.ndarray, logreg: LogisticRegression, image: str) -> None:
    """Plot the samples on the decision regions of the classifier."""
    import matplotlib.pyplot as plt
    from sklearn.inspection import DecisionBoundaryDisplay

    _, axes = plt.subplots(figsize=(4, 3))
    DecisionBoundaryDisplay.from_estimator(
        logreg, X, ax=axes, response_method="predict", plot_method="pcolormesh", shading="auto"
    )
    axes.scatter(X[:, 0], X[:, 1], c=Y, edgecolors="k")
    axes.set(xlabel="Sepal length", ylabel="Sepal width", xticks=(), yticks=())
    plt.savefig(image, metadata={"Software": None})
