// What the sources of our ops for CPUs share of TensorFlow: names, values, threads.

#ifndef TRAINING_OPS_H_
#define TRAINING_OPS_H_

#include <cstdint>
#include <functional>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/lib/core/threadpool.h"

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

inline const float* Floats(const Tensor& tensor) { return tensor.flat<float>().data(); }
inline float* Floats(Tensor* tensor) { return tensor->flat<float>().data(); }

// work(first, end) for ranges of 0 .. total, on TensorFlow's own threads; cost: of one, in nanoseconds or so.
inline void ForRanges(OpKernelContext* context, int64_t total, int64_t cost,
                      std::function<void(int64_t, int64_t)> work) {
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      total, cost, [&](tensorflow::int64 first, tensorflow::int64 end) { work(first, end); });
}

// Every output has the shape of that input.
inline tensorflow::Status LikeInput(tensorflow::shape_inference::InferenceContext* context, int input) {
  for (int output = 0; output < context->num_outputs(); ++output) context->set_output(output, context->input(input));
  return tensorflow::Status();
}

#endif  // TRAINING_OPS_H_
