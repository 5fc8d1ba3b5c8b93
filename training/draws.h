// Dropout in our ops: draws as they come from TensorFlow's generator. A value stays where its draw is `least` or more, and
// is then multiplied by `scale`. No draws at all: nothing is dropped.

#ifndef TRAINING_DRAWS_H_
#define TRAINING_DRAWS_H_

#include <cstdint>

#include "training/ops.h"

// What values are multiplied by: 0 or `scale`.
struct Draws {
  const int16_t* draws;  // null: nothing is dropped
  int least;
  float scale;

  void Factors(int64_t first, int64_t count, float* factors) const {
    for (int64_t place = 0; place < count; ++place) factors[place] = draws[first + place] >= least ? scale : 0.0f;
  }
};

class WithDraws : public OpKernel {
 public:
  explicit WithDraws(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("least", &least_));
    OP_REQUIRES_OK(context, context->GetAttr("scale", &scale_));
  }

 protected:
  Draws DrawsOf(const Tensor& draws) const {
    return {draws.NumElements() ? draws.flat<int16_t>().data() : nullptr, least_, scale_};
  }

  // Whether there are none, or one for each of so many values.
  static bool Fit(const Tensor& draws, int64_t values) { return !draws.NumElements() || draws.NumElements() == values; }

 private:
  int least_;
  float scale_;
};

#endif  // TRAINING_DRAWS_H_
