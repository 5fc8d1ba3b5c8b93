// The optimizer's update: Adam with decoupled weight decay, and the norm of all gradients, for CPUs.
//
// What comes out does not depend on the number of threads. Built by training/native.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "training/lanes.h"
#include "training/ops.h"

namespace {

constexpr int64_t kCostOfValue = 4;      // of the order of a nanosecond
constexpr int64_t kOfPart = 1 << 14;     // values whose squares are summed together

// Adam's update of a variable and its moments, with the gradient first multiplied by `clip` and the variable by `kept`.
struct Adam {
  float beta_1, beta_2, epsilon;
  float *w, *m, *v;
  float clip, kept, rate;

  // Values from `first` on.
  void Update(const float* __restrict gradient, int64_t first, int64_t count) const {
    float *__restrict to = w + first, *__restrict one = m + first, *__restrict two = v + first;
    for (int64_t i = 0; i < count; ++i) {  // the compiler makes vectors of it
      const float g = gradient[i] * clip;
      one[i] += (g - one[i]) * (1.0f - beta_1);
      two[i] += (g * g - two[i]) * (1.0f - beta_2);
      to[i] = to[i] * kept - one[i] * rate / (std::sqrt(two[i]) + epsilon);
    }
  }
};

class WithAdam : public OpKernel {
 public:
  explicit WithAdam(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &adam_.beta_1));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &adam_.beta_2));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &adam_.epsilon));
  }

  void Compute(OpKernelContext* context) override {
    Adam adam = adam_;
    float** values[kVariables] = {&adam.w, &adam.m, &adam.v};
    tensorflow::core::RefCountPtr<tensorflow::Var> variables[kVariables];
    TensorShape shape;
    for (int i = 0; i < kVariables; ++i) {
      OP_REQUIRES_OK(context,
                     tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, i), &variables[i]));
      Tensor* held = variables[i]->tensor();
      if (!i) shape = held->shape();
      OP_REQUIRES(context, held->dtype() == tensorflow::DT_FLOAT && held->shape() == shape && Fits(context, shape),
                  tensorflow::errors::InvalidArgument("BertAdam: variable, moments and gradient are float of one shape"));
      OP_REQUIRES_OK(context, KeepForReaders(context, held));
      *values[i] = Floats(held);
    }
    float* scalars[] = {&adam.clip, &adam.kept, &adam.rate};
    for (int i = 0; i < 3; ++i) {
      const Tensor& scalar = context->input(context->num_inputs() - 3 + i);
      OP_REQUIRES(context, scalar.NumElements() == 1,
                  tensorflow::errors::InvalidArgument("BertAdam: clip, kept and rate are scalars"));
      *scalars[i] = scalar.flat<float>()(0);
    }
    Update(context, adam, shape);
  }

 protected:
  static constexpr int kVariables = 3;  // the inputs before the gradient

  // Whether the gradient is one of a variable of that shape.
  virtual bool Fits(OpKernelContext* context, const TensorShape& shape) const = 0;
  virtual void Update(OpKernelContext* context, const Adam& adam, const TensorShape& shape) const = 0;

 private:
  // Who has read a variable keeps what was read.
  static tensorflow::Status KeepForReaders(OpKernelContext* context, Tensor* held) {
    tensorflow::TensorBuffer* buffer = tensorflow::DMAHelper::buffer(held);
    if (!buffer || (buffer->RefCountIsOne() && buffer->root_buffer()->RefCountIsOne()))
      return tensorflow::Status();
    Tensor copy;
    const tensorflow::Status status = context->allocate_temp(tensorflow::DT_FLOAT, held->shape(), &copy);
    if (!status.ok()) return status;
    std::copy_n(Floats(*held), held->NumElements(), Floats(&copy));
    *held = copy;
    return status;
  }

  Adam adam_;
};

class BertAdam : public WithAdam {
 public:
  using WithAdam::WithAdam;

 protected:
  bool Fits(OpKernelContext* context, const TensorShape& shape) const override {
    return context->input(kVariables).shape() == shape;
  }

  void Update(OpKernelContext* context, const Adam& adam, const TensorShape& shape) const override {
    const float* gradient = Floats(context->input(kVariables));
    ForRanges(context, shape.num_elements(), kCostOfValue, [&](int64_t first, int64_t end) {
      adam.Update(gradient + first, first, end - first);
    });
  }
};

// The same for a table of which only some rows have a gradient: that of the others is neither made nor read.
class BertAdamOfRows : public WithAdam {
 public:
  using WithAdam::WithAdam;

 protected:
  bool Fits(OpKernelContext* context, const TensorShape& shape) const override {
    const Tensor &values = context->input(kVariables), &ids = context->input(kVariables + 1);
    if (shape.dims() < 1 || values.dims() != shape.dims() || ids.shape() != TensorShape({values.dim_size(0)}))
      return false;
    TensorShape whole = values.shape();
    whole.set_dim(0, shape.dim_size(0));
    return whole == shape;
  }

  void Update(OpKernelContext* context, const Adam& adam, const TensorShape& shape) const override {
    const Tensor &values = context->input(kVariables), &ids = context->input(kVariables + 1);
    const int64_t rows = shape.dim_size(0), width = rows ? shape.num_elements() / rows : 0;
    const std::vector<float> none(width, 0.0f);
    std::vector<const float*> gradient(rows, none.data());
    for (int64_t i = 0; i < ids.NumElements(); ++i) {
      const int64_t id = ids.flat<int32_t>()(i);
      OP_REQUIRES(context, id >= 0 && id < rows && gradient[id] == none.data(),
                  tensorflow::errors::InvalidArgument("BertAdamOfRows: ids are rows, each once; found ", id));
      gradient[id] = Floats(values) + i * width;
    }
    ForRanges(context, rows, width * kCostOfValue, [&](int64_t first, int64_t end) {
      for (; first < end; ++first) adam.Update(gradient[first], first * width, width);
    });
  }
};

// The root of the sum of all squares.
class BertGlobalNorm : public OpKernel {
 public:
  explicit BertGlobalNorm(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    struct Part {
      const float* values;
      int64_t count;
    };
    std::vector<Part> parts;
    for (int i = 0; i < context->num_inputs(); ++i) {
      const Tensor& values = context->input(i);
      for (int64_t first = 0; first < values.NumElements(); first += kOfPart)
        parts.push_back({Floats(values) + first, std::min<int64_t>(kOfPart, values.NumElements() - first)});
    }
    // A sum for each part: the sum of them has one order, however many threads there are.
    std::vector<double> sums(parts.size());
    ForRanges(context, parts.size(), kOfPart, [&](int64_t first, int64_t end) {
      for (; first < end; ++first) sums[first] = Squares(parts[first].values, parts[first].count);
    });
    double total = 0.0;
    for (const double sum : sums) total += sum;
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &output));
    *Floats(output) = static_cast<float>(std::sqrt(total));
  }

 private:
  static float Squares(const float* values, int64_t count) {
    Lanes total{};
    ByLanes(count, [&](int64_t place, int lanes) {
      const Lanes given = LoadSome(values + place, lanes);
      total += given * given;
    });
    return SumOf(total);
  }
};

// What both updates are given first.
#define WITH_MOMENTS             \
  Attr("beta_1: float")          \
      .Attr("beta_2: float")     \
      .Attr("epsilon: float")    \
      .Input("variable: resource") \
      .Input("m: resource")      \
      .Input("v: resource")

REGISTER_OP("BertAdam")
    .WITH_MOMENTS
    .Input("gradient: float")
    .Input("clip: float")
    .Input("kept: float")
    .Input("rate: float")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return tensorflow::Status(); });

REGISTER_OP("BertAdamOfRows")
    .WITH_MOMENTS
    .Input("values: float")
    .Input("ids: int32")
    .Input("clip: float")
    .Input("kept: float")
    .Input("rate: float")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return tensorflow::Status(); });

REGISTER_OP("BertGlobalNorm")
    .Attr("count: int >= 1")
    .Input("gradients: count * float")
    .Output("norm: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->Scalar());
      return tensorflow::Status();
    });

REGISTER_KERNEL_BUILDER(Name("BertAdam").Device(DEVICE_CPU), BertAdam);
REGISTER_KERNEL_BUILDER(Name("BertAdamOfRows").Device(DEVICE_CPU), BertAdamOfRows);
REGISTER_KERNEL_BUILDER(Name("BertGlobalNorm").Device(DEVICE_CPU), BertGlobalNorm);

}  // namespace
