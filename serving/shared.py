"""One model for many threads: what waits together is computed together.

    with SharedPredictor(Predictor("output/classifier/export", batch_size=4)) as shared:
        shared.predict("聚氯乙烯生产车间招聘操作工")   # from any thread
"""

import concurrent.futures
import queue
import threading


class SharedPredictor:
    """Collects the texts that callers wait for and classifies them in batches.

    Nothing waits for a batch to fill: one begins as soon as the one before is done, with whatever has come meanwhile.
    """

    def __init__(self, predictor, max_batch=32):
        """Args:
          predictor: Predictor; its `batch_size` says how many texts of similar length run together. On a CPU few
            are best (`benchmarks.concurrency`): a batch is as long as its longest text.
          max_batch: texts computed together at most.
        """
        self._predictor, self._max_batch = predictor, max_batch
        self._waiting = queue.Queue()
        self._closing = threading.Lock()
        self._closed = False
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def predict(self, text):
        """The Prediction of one text (str, or (str, str) for a pair), when it is there."""
        return self.submit(text).result()

    def submit(self, text):
        """A future of the Prediction.

        Raises:
          RuntimeError: it is closed.
          TypeError: neither str nor a pair of them; no other caller's text is touched by that.
        """
        features = self._predictor.features(text)
        future = concurrent.futures.Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("this SharedPredictor is closed")
            self._waiting.put((features, future))
        return future

    def close(self):
        """Answers what waits, and then no more."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._worker.join()

    def _work(self):
        ended = False
        while not ended:
            batch = [self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get())
            ended = None in batch
            # Whoever has given up is not computed for.
            wanted = [item for item in batch if item is not None and item[1].set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _answer(self, wanted):
        try:
            predictions = self._predictor.predict_features([features for features, _ in wanted])
        except Exception as error:  # each caller's to handle; the worker goes on
            for _, future in wanted:
                future.set_exception(error)
            return
        for (_, future), prediction in zip(wanted, predictions):
            future.set_result(prediction)
