"""What a model has to beat: the commonest label, and linear models on characters."""

import collections

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

# predictions: list of labels. parameters: int. predict: list of texts -> list of labels, to be timed.
Baseline = collections.namedtuple("Baseline", "predictions parameters predict")


def naive_bayes(train_texts, train_labels, test_texts):
    """Multinomial naive Bayes on counts of characters and of pairs of neighbouring characters.

    Args:
      train_texts: list of str.
      train_labels: list of labels, of any kind that compares.
      test_texts: list of str.

    Returns:
      `Baseline`; its parameters are a log probability for each class and for each feature of each class.
    """
    model = make_pipeline(CountVectorizer(analyzer="char", ngram_range=(1, 2)), MultinomialNB())
    model.fit(train_texts, train_labels)
    bayes = model.named_steps["multinomialnb"]

    def predict(texts):
        return model.predict(texts).tolist()

    return Baseline(predict(test_texts), bayes.feature_log_prob_.size + bayes.class_log_prior_.size, predict)


def majority(train_labels, test_texts):
    """The commonest label for every text; of equally common ones the first."""
    label = collections.Counter(train_labels).most_common(1)[0][0]
    return Baseline([label] * len(test_texts), 0, lambda texts: [label] * len(texts))


def linear(train_texts, train_labels, test_texts):
    """Logistic regression on one to three neighbouring characters, weighted by tf-idf; arguments as in `naive_bayes`.

    Its parameters are a weight for each feature and a bias, for each class; of two classes, one. Of a single label, as
    a teacher may give that learnt nothing, it is `majority`.
    """
    if len(set(train_labels)) == 1:
        return majority(train_labels, test_texts)
    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True),
                          LogisticRegression(C=10.0, max_iter=1000))
    model.fit(train_texts, train_labels)
    regression = model.named_steps["logisticregression"]

    def predict(texts):
        return model.predict(texts).tolist()

    return Baseline(predict(test_texts), regression.coef_.size + regression.intercept_.size, predict)
