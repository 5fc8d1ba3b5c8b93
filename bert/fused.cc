// What stands between a Transformer's matrix products, forward and gradient, and the optimizer's update: each in one
// pass over memory, for CPUs.
//
// What comes out does not depend on the number of threads. Built by training/native.py. Letters: M rows, H width.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "training/draws.h"
#include "training/lanes.h"
#include "training/ops.h"

namespace {

constexpr int64_t kRowsOfTask = 64;   // rows whose parameters' gradients are summed together
constexpr int64_t kCostOfValue = 4;   // of the order of a nanosecond

// body(place, lanes) for each group of lanes of `count` values; the last may be shorter.
template <typename Body>
inline void ByLanes(int64_t count, Body body) {
  for (int64_t place = 0; place < count; place += kLanes)
    body(place, static_cast<int>(std::min<int64_t>(kLanes, count - place)));
}

// x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
constexpr float kTwice = 1.5957691216057308f, kCubic = 0.044715f;

// By the exponential: of `Sigmoid` too little would be left where x is far below 0.
inline Lanes GeluSigmoid(Lanes x) { return 1.0f / (1.0f + Exp(x * (-kTwice - kTwice * kCubic * (x * x)))); }

class BertGelu : public OpKernel {
 public:
  explicit BertGelu(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, input.shape(), &output));
    const float* from = Floats(input);
    float* to = Floats(output);
    ForRanges(context, input.NumElements(), kCostOfValue, [=](int64_t first, int64_t end) {
      ByLanes(end - first, [=](int64_t place, int count) {
        const Lanes x = LoadSome(from + first + place, count);
        StoreSome(to + first + place, x * GeluSigmoid(x), count);
      });
    });
  }
};

class BertGeluGrad : public OpKernel {
 public:
  explicit BertGeluGrad(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &gradient = context->input(0), &input = context->input(1);
    OP_REQUIRES(context, gradient.shape() == input.shape(),
                tensorflow::errors::InvalidArgument("BertGeluGrad: gradient and input have one shape"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, input.shape(), &output));
    const float *of = Floats(gradient), *from = Floats(input);
    float* to = Floats(output);
    ForRanges(context, input.NumElements(), kCostOfValue, [=](int64_t first, int64_t end) {
      ByLanes(end - first, [=](int64_t place, int count) {
        const Lanes x = LoadSome(from + first + place, count), s = GeluSigmoid(x);
        const Lanes slope = kTwice + 3.0f * kTwice * kCubic * (x * x);
        const Lanes derivative = s + x * s * (1.0f - s) * slope;
        StoreSome(to + first + place, LoadSome(of + first + place, count) * derivative, count);
      });
    });
  }
};

// A row of dropout(inputs) + residual, its mean, and 1 / its standard deviation.
struct SummedRows {
  const float *inputs, *residual;
  Draws draws;
  int64_t width;
  float epsilon;

  // factors: [H], filled where something is dropped; sums: [H].
  void Row(int64_t row, float* factors, float* sums, float* mean, float* rate) const {
    const float *x = inputs + row * width, *other = residual + row * width;
    Lanes total{};
    if (draws.draws) {
      draws.Factors(row * width, width, factors);
      ByLanes(width, [&](int64_t place, int count) {
        const Lanes sum = LoadSome(x + place, count) * LoadSome(factors + place, count) + LoadSome(other + place, count);
        StoreSome(sums + place, sum, count);
        total += sum;
      });
    } else {
      ByLanes(width, [&](int64_t place, int count) {
        const Lanes sum = LoadSome(x + place, count) + LoadSome(other + place, count);
        StoreSome(sums + place, sum, count);
        total += sum;
      });
    }
    *mean = SumOf(total) / width;
    Lanes squares{};
    const int64_t whole = width / kLanes * kLanes;
    for (int64_t place = 0; place < whole; place += kLanes) {
      const Lanes away = Load(sums + place) - *mean;
      squares += away * away;
    }
    float variance = SumOf(squares);
    for (int64_t place = whole; place < width; ++place) variance += (sums[place] - *mean) * (sums[place] - *mean);
    *rate = 1.0f / std::sqrt(variance / width + epsilon);
  }
};

class BertAddNorm : public WithDraws {
 public:
  explicit BertAddNorm(OpKernelConstruction* context) : WithDraws(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &inputs = context->input(0), &residual = context->input(1), &draws = context->input(2);
    const Tensor &gamma = context->input(3), &beta = context->input(4);
    OP_REQUIRES(context, inputs.dims() == 2 && residual.shape() == inputs.shape() && Fit(draws, inputs.NumElements()) &&
                gamma.NumElements() == inputs.dim_size(1) && beta.NumElements() == inputs.dim_size(1),
                tensorflow::errors::InvalidArgument(
                    "BertAddNorm needs inputs and residual [M, H], draws [M H] or none, gamma and beta [H]"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0, 1}, 0, inputs.shape(), &output));
    const int64_t width = inputs.dim_size(1);
    const SummedRows rows{Floats(inputs), Floats(residual), DrawsOf(draws), width, epsilon_};
    const float *scale = Floats(gamma), *shift = Floats(beta);
    float* to = Floats(output);
    ForRanges(context, inputs.dim_size(0), width * kCostOfValue, [=](int64_t first, int64_t end) {
      std::vector<float> factors(width), sums(width);
      for (int64_t row = first; row < end; ++row) {
        float mean, rate;
        rows.Row(row, factors.data(), sums.data(), &mean, &rate);
        ByLanes(width, [&](int64_t place, int count) {
          const Lanes normal = (LoadSome(sums.data() + place, count) - mean) * rate;
          StoreSome(to + row * width + place,
                    normal * LoadSome(scale + place, count) + LoadSome(shift + place, count), count);
        });
      }
    });
  }

 private:
  float epsilon_;
};

class BertAddNormGrad : public WithDraws {
 public:
  explicit BertAddNormGrad(OpKernelConstruction* context) : WithDraws(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &gradient = context->input(0), &inputs = context->input(1), &residual = context->input(2);
    const Tensor &draws = context->input(3), &gamma = context->input(4);
    const int64_t height = inputs.dim_size(0), width = inputs.dim_size(1);
    OP_REQUIRES(context, gradient.shape() == inputs.shape() && residual.shape() == inputs.shape() &&
                Fit(draws, inputs.NumElements()) && gamma.NumElements() == width,
                tensorflow::errors::InvalidArgument("BertAddNormGrad: shapes differ"));
    Tensor *of_inputs, *of_residual, *of_gamma, *of_beta;
    OP_REQUIRES_OK(context, context->allocate_output(0, inputs.shape(), &of_inputs));
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 1, inputs.shape(), &of_residual));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &of_gamma));
    OP_REQUIRES_OK(context, context->allocate_output(3, gamma.shape(), &of_beta));
    const SummedRows rows{Floats(inputs), Floats(residual), DrawsOf(draws), width, epsilon_};
    const float *of = Floats(gradient), *scale = Floats(gamma);
    float *to_inputs = Floats(of_inputs), *to_residual = Floats(of_residual);
    // Of gamma and of beta, a part for each task: their sum has one order, however many threads there are.
    const int64_t tasks = (height + kRowsOfTask - 1) / kRowsOfTask;
    std::vector<float> parts(tasks * 2 * width, 0.0f);
    ForRanges(context, tasks, kRowsOfTask * width * kCostOfValue * 2, [&](int64_t first, int64_t end) {
      std::vector<float> factors(width), sums(width);
      for (int64_t task = first; task < end; ++task) {
        float* part = &parts[task * 2 * width];
        for (int64_t row = task * kRowsOfTask; row < std::min(height, (task + 1) * kRowsOfTask); ++row) {
          float mean, rate;
          rows.Row(row, factors.data(), sums.data(), &mean, &rate);
          Through(of + row * width, scale, mean, rate, width, sums.data(), part);
          ByLanes(width, [&](int64_t place, int count) {
            const Lanes sum = LoadSome(sums.data() + place, count);
            StoreSome(to_residual + row * width + place, sum, count);
            StoreSome(to_inputs + row * width + place,
                      rows.draws.draws ? sum * LoadSome(factors.data() + place, count) : sum, count);
          });
        }
      }
    });
    float *to_gamma = Floats(of_gamma), *to_beta = Floats(of_beta);
    std::fill_n(to_gamma, width, 0.0f);
    std::fill_n(to_beta, width, 0.0f);
    for (int64_t task = 0; task < tasks; ++task) {
      for (int64_t place = 0; place < width; ++place) to_gamma[place] += parts[task * 2 * width + place];
      for (int64_t place = 0; place < width; ++place) to_beta[place] += parts[(task * 2 + 1) * width + place];
    }
  }

 private:
  // From the gradient of a row to that of its sum, which takes the place of the sum. With n the normalised row and
  // d = gamma * gradient: rate (d - mean(d) - n mean(d n)).
  static void Through(const float* of, const float* gamma, float mean, float rate, int64_t width, float* sums,
                      float* part) {
    Lanes of_shift{}, of_scale{};
    ByLanes(width, [&](int64_t place, int count) {
      const Lanes gradient = LoadSome(of + place, count);
      const Lanes normal = (LoadSome(sums + place, count) - mean) * rate;
      const Lanes scaled = gradient * LoadSome(gamma + place, count);  // 0 beyond the row's end
      StoreSome(sums + place, normal, count);
      StoreSome(part + place, LoadSome(part + place, count) + gradient * normal, count);
      StoreSome(part + width + place, LoadSome(part + width + place, count) + gradient, count);
      of_shift += scaled;
      of_scale += scaled * normal;
    });
    const float shift = SumOf(of_shift) / width, share = SumOf(of_scale) / width;
    ByLanes(width, [&](int64_t place, int count) {
      const Lanes scaled = LoadSome(of + place, count) * LoadSome(gamma + place, count);
      StoreSome(sums + place, (scaled - shift - LoadSome(sums + place, count) * share) * rate, count);
    });
  }

  float epsilon_;
};

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

REGISTER_OP("BertGelu").Input("x: float").Output("y: float").SetShapeFn(
    [](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_OP("BertGeluGrad").Input("y_gradient: float").Input("x: float").Output("x_gradient: float").SetShapeFn(
    [](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 1); });

REGISTER_OP("BertAddNorm")
    .Attr("least: int")
    .Attr("scale: float")
    .Attr("epsilon: float")
    .Input("inputs: float")
    .Input("residual: float")
    .Input("draws: int16")
    .Input("gamma: float")
    .Input("beta: float")
    .Output("normalized: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_OP("BertAddNormGrad")
    .Attr("least: int")
    .Attr("scale: float")
    .Attr("epsilon: float")
    .Input("gradient: float")
    .Input("inputs: float")
    .Input("residual: float")
    .Input("draws: int16")
    .Input("gamma: float")
    .Output("inputs_gradient: float")
    .Output("residual_gradient: float")
    .Output("gamma_gradient: float")
    .Output("beta_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      for (int output = 0; output < 4; ++output) context->set_output(output, context->input(output < 2 ? 1 : 4));
      return tensorflow::Status();
    });

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

REGISTER_KERNEL_BUILDER(Name("BertAdam").Device(DEVICE_CPU), BertAdam);
REGISTER_KERNEL_BUILDER(Name("BertAdamOfRows").Device(DEVICE_CPU), BertAdamOfRows);
REGISTER_KERNEL_BUILDER(Name("BertGelu").Device(DEVICE_CPU), BertGelu);
REGISTER_KERNEL_BUILDER(Name("BertGeluGrad").Device(DEVICE_CPU), BertGeluGrad);
REGISTER_KERNEL_BUILDER(Name("BertAddNorm").Device(DEVICE_CPU), BertAddNorm);
REGISTER_KERNEL_BUILDER(Name("BertAddNormGrad").Device(DEVICE_CPU), BertAddNormGrad);

}  // namespace
