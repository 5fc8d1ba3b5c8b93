"""What a model has to beat: naive Bayes on characters."""

import collections

from sklearn.feature_extraction.text import CountVectorizer
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
