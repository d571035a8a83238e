"""Forests of other libraries, fitted and timed on request, so that repetitions of ours and theirs can take turns.

    python3 peers.py LIBRARY ROWS_FILE FEATURES TREES SAMPLES

ROWS_FILE has float32 values, row-major. Each line of standard input is a request and is answered by one line: `fit`, `score`
(all rows), `row ROUNDS` (one row, ROUNDS times) by seconds; `size` by the bytes of the pickled model; `auc LABELS_FILE SEED` by
the area under the ROC curve of a forest with that seed, LABELS_FILE having a byte per row. Everything runs on one thread.
"""

import pickle
import sys
import time

import numpy as np


class ScikitLearn:
    def __init__(self, rows, trees, samples):
        self.rows, self.trees, self.samples = rows, trees, samples

    def fit(self, seed):
        from sklearn.ensemble import IsolationForest

        # Its own threads are off unless asked for.
        self.model = IsolationForest(n_estimators=self.trees, max_samples=self.samples, random_state=seed).fit(self.rows)

    def score(self, rows):
        return self.model.score_samples(rows)


class Isotree:
    def __init__(self, rows, trees, samples):
        # It works in double precision, column by column: what it would copy otherwise is not in its figure.
        self.rows, self.trees, self.samples = np.asfortranarray(rows, dtype=np.float64), trees, samples

    def fit(self, seed):
        from isotree import IsolationForest

        # ndim=1 and no missing values: the algorithm of the paper, and its fastest setting.
        self.model = IsolationForest(
            ntrees=self.trees, sample_size=self.samples, ndim=1, missing_action="fail", nthreads=1, random_seed=seed + 1
        ).fit(self.rows)

    def score(self, rows):
        return -self.model.predict(rows)


class Coniferest:
    def __init__(self, rows, trees, samples):
        self.rows, self.trees, self.samples = rows, trees, samples

    def fit(self, seed):
        from coniferest.isoforest import IsolationForest

        self.model = IsolationForest(n_trees=self.trees, n_subsamples=self.samples, n_jobs=1, random_seed=seed).fit(self.rows)

    def score(self, rows):
        return self.model.score_samples(rows)


LIBRARIES = {"scikit-learn": ScikitLearn, "isotree": Isotree, "coniferest": Coniferest}


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rounds_of(work, rounds):
    for _ in range(rounds):
        work()


def area(scores, labels):
    from scipy.stats import rankdata

    outliers = labels == 1
    n, rest = int(outliers.sum()), int((~outliers).sum())
    return (rankdata(-scores)[outliers].sum() - n * (n + 1) / 2) / (n * rest)


def main():
    library, rows_file, features, trees, samples = sys.argv[1:]
    rows = np.fromfile(rows_file, dtype=np.float32).reshape(-1, int(features))
    forest = LIBRARIES[library](rows, int(trees), min(int(samples), len(rows)))
    forest.fit(0)
    rows = forest.rows
    print("ready", flush=True)
    for line in sys.stdin:
        request, *arguments = line.split()
        if request == "fit":
            answer = seconds(lambda: forest.fit(0))
        elif request == "score":
            answer = seconds(lambda: forest.score(rows))
        elif request == "row":
            one, rounds = rows[:1], int(arguments[0])
            answer = seconds(lambda: rounds_of(lambda: forest.score(one), rounds))
        elif request == "size":
            answer = len(pickle.dumps(forest.model))
        elif request == "auc":
            forest.fit(int(arguments[1]))
            answer = area(forest.score(rows), np.fromfile(arguments[0], dtype=np.uint8))
        else:
            raise ValueError(f"unknown request {request}")
        print(answer, flush=True)


main()
