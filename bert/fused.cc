// What stands between a Transformer's matrix products and behind the last of them, forward and gradient: each in one
// pass over memory, for CPUs.
//
// What comes out does not depend on the number of threads. Built by training/native.py. Letters: M rows, H width, V
// classes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "training/draws.h"
#include "training/lanes.h"
#include "training/ops.h"

namespace {

constexpr int64_t kRowsOfTask = 64;   // rows whose parameters' gradients are summed together
constexpr int64_t kCostOfValue = 4;   // of the order of a nanosecond

// x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
constexpr float kTwice = 1.5957691216057308f, kCubic = 0.044715f;

// `tensor` and a bias for each of its columns.
bool HasBias(const Tensor& tensor, const Tensor& bias) {
  return tensor.dims() == 2 && bias.NumElements() == tensor.dim_size(1);
}

// By the exponential: of `Sigmoid` too little would be left where x is far below 0.
inline Lanes GeluSigmoid(Lanes x) { return 1.0f / (1.0f + Exp(x * (-kTwice - kTwice * kCubic * (x * x)))); }

class BertGelu : public OpKernel {
 public:
  explicit BertGelu(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &input = context->input(0), &bias = context->input(1);
    OP_REQUIRES(context, HasBias(input, bias),
                tensorflow::errors::InvalidArgument("BertGelu needs a tensor [M, H] and a bias [H]"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, input.shape(), &output));
    const int64_t width = input.dim_size(1);
    const float *from = Floats(input), *added = Floats(bias);
    float* to = Floats(output);
    ForRanges(context, input.dim_size(0), width * kCostOfValue, [=](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row)
        ByLanes(width, [=](int64_t place, int count) {
          const int64_t here = row * width + place;
          const Lanes x = LoadSome(from + here, count) + LoadSome(added + place, count);
          StoreSome(to + here, x * GeluSigmoid(x), count);
        });
    });
  }
};

class BertGeluGrad : public OpKernel {
 public:
  explicit BertGeluGrad(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &gradient = context->input(0), &input = context->input(1), &bias = context->input(2);
    OP_REQUIRES(context, gradient.shape() == input.shape() && HasBias(input, bias),
                tensorflow::errors::InvalidArgument("BertGeluGrad: shapes differ"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, input.shape(), &output));
    const int64_t width = input.dim_size(1);
    const float *of = Floats(gradient), *from = Floats(input), *added = Floats(bias);
    float* to = Floats(output);
    ForRanges(context, input.dim_size(0), width * kCostOfValue, [=](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row)
        ByLanes(width, [=](int64_t place, int count) {
          const int64_t here = row * width + place;
          const Lanes x = LoadSome(from + here, count) + LoadSome(added + place, count), s = GeluSigmoid(x);
          const Lanes slope = kTwice + 3.0f * kTwice * kCubic * (x * x);
          const Lanes derivative = s + x * s * (1.0f - s) * slope;
          StoreSome(to + here, LoadSome(of + here, count) * derivative, count);
        });
    });
  }
};

// A row of dropout(inputs + bias) + residual, its mean, and 1 / its standard deviation.
struct SummedRows {
  const float *inputs, *bias, *residual;
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
        const Lanes given = LoadSome(x + place, count) + LoadSome(bias + place, count);
        const Lanes sum = given * LoadSome(factors + place, count) + LoadSome(other + place, count);
        StoreSome(sums + place, sum, count);
        total += sum;
      });
    } else {
      ByLanes(width, [&](int64_t place, int count) {
        const Lanes given = LoadSome(x + place, count) + LoadSome(bias + place, count);
        const Lanes sum = given + LoadSome(other + place, count);
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
    const Tensor &inputs = context->input(0), &bias = context->input(1), &residual = context->input(2);
    const Tensor &draws = context->input(3), &gamma = context->input(4), &beta = context->input(5);
    OP_REQUIRES(context, HasBias(inputs, bias) && residual.shape() == inputs.shape() && HasBias(inputs, gamma) &&
                HasBias(inputs, beta) && Fit(draws, inputs.NumElements()),
                tensorflow::errors::InvalidArgument(
                    "BertAddNorm needs inputs and residual [M, H], draws [M H] or none, bias, gamma and beta [H]"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0, 2}, 0, inputs.shape(), &output));
    const int64_t width = inputs.dim_size(1);
    const SummedRows rows{Floats(inputs), Floats(bias), Floats(residual), DrawsOf(draws), width, epsilon_};
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
    const Tensor &gradient = context->input(0), &inputs = context->input(1), &bias = context->input(2);
    const Tensor &residual = context->input(3), &draws = context->input(4), &gamma = context->input(5);
    OP_REQUIRES(context, gradient.shape() == inputs.shape() && residual.shape() == inputs.shape() &&
                HasBias(inputs, bias) && HasBias(inputs, gamma) && Fit(draws, inputs.NumElements()),
                tensorflow::errors::InvalidArgument("BertAddNormGrad: shapes differ"));
    const int64_t height = inputs.dim_size(0), width = inputs.dim_size(1);
    Tensor *of_inputs, *of_residual, *of_gamma, *of_beta;
    OP_REQUIRES_OK(context, context->allocate_output(0, inputs.shape(), &of_inputs));
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 1, inputs.shape(), &of_residual));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &of_gamma));
    OP_REQUIRES_OK(context, context->allocate_output(3, gamma.shape(), &of_beta));
    const SummedRows rows{Floats(inputs), Floats(bias), Floats(residual), DrawsOf(draws), width, epsilon_};
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

// -log softmax(logits) of the label, for each row.
class BertCrossEntropy : public OpKernel {
 public:
  explicit BertCrossEntropy(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &logits = context->input(0), &labels = context->input(1);
    OP_REQUIRES(context, logits.dims() == 2 && labels.dims() == 1 && labels.dim_size(0) == logits.dim_size(0),
                tensorflow::errors::InvalidArgument("BertCrossEntropy needs logits [M, V] and labels [M]"));
    const int64_t height = logits.dim_size(0), width = logits.dim_size(1);
    const int32_t* classes = labels.flat<int32_t>().data();
    for (int64_t row = 0; row < height; ++row)
      OP_REQUIRES(context, classes[row] >= 0 && classes[row] < width, tensorflow::errors::InvalidArgument(
          "BertCrossEntropy: labels are 0 to ", width - 1, "; found ", classes[row]));
    Tensor *losses, *most, *shares;
    OP_REQUIRES_OK(context, context->allocate_output(0, labels.shape(), &losses));
    OP_REQUIRES_OK(context, context->allocate_output(1, labels.shape(), &most));
    OP_REQUIRES_OK(context, context->allocate_output(2, labels.shape(), &shares));
    const float* from = Floats(logits);
    float *to = Floats(losses), *to_most = Floats(most), *to_share = Floats(shares);
    ForRanges(context, height, width * kCostOfValue, [=](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row) {
        const float* x = from + row * width;
        const float largest = MostOfRow(x, width);
        Lanes total{};
        ByLanes(width, [&](int64_t place, int count) {
          Lanes power = Exp(LoadSome(x + place, count) - largest);
          for (int lane = count; lane < kLanes; ++lane) power[lane] = 0.0f;
          total += power;
        });
        const float sum = SumOf(total);
        to[row] = std::log(sum) - (x[classes[row]] - largest);
        to_most[row] = largest;
        to_share[row] = 1.0f / sum;
      }
    });
  }

 private:
  static float MostOfRow(const float* x, int64_t width) {
    Lanes most = Fill(x[0]);
    for (int64_t place = 0; place + kLanes <= width; place += kLanes) {
      const Lanes given = Load(x + place);
      most = given > most ? given : most;
    }
    float largest = MostOf(most);
    for (int64_t place = width / kLanes * kLanes; place < width; ++place) largest = std::max(largest, x[place]);
    return largest;
  }
};

// gradient (softmax(logits) - 1 at the label), for each row.
class BertCrossEntropyGrad : public OpKernel {
 public:
  explicit BertCrossEntropyGrad(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &gradient = context->input(0), &logits = context->input(1), &labels = context->input(2);
    const int64_t height = logits.dim_size(0), width = logits.dim_size(1);
    OP_REQUIRES(context, gradient.NumElements() == height && labels.NumElements() == height &&
                context->input(3).NumElements() == height && context->input(4).NumElements() == height,
                tensorflow::errors::InvalidArgument("BertCrossEntropyGrad: shapes differ"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({1}, 0, logits.shape(), &output));
    const float *of = Floats(gradient), *from = Floats(logits);
    const float *most = Floats(context->input(3)), *shares = Floats(context->input(4));
    const int32_t* classes = labels.flat<int32_t>().data();
    float* to = Floats(output);
    ForRanges(context, height, width * kCostOfValue, [=](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row) {
        const float *x = from + row * width, factor = of[row] * shares[row], largest = most[row];
        float* y = to + row * width;
        ByLanes(width, [&](int64_t place, int count) {
          StoreSome(y + place, Exp(LoadSome(x + place, count) - largest) * factor, count);
        });
        y[classes[row]] -= of[row];
      }
    });
  }
};

// The sum of all rows: the gradient of a bias that was added to each.
class BertSumOfRows : public OpKernel {
 public:
  explicit BertSumOfRows(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& rows = context->input(0);
    OP_REQUIRES(context, rows.dims() == 2, tensorflow::errors::InvalidArgument("BertSumOfRows needs rows [M, H]"));
    const int64_t height = rows.dim_size(0), width = rows.dim_size(1);
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({width}), &output));
    const float* from = Floats(rows);
    // A part for each task, as above.
    const int64_t tasks = (height + kRowsOfTask - 1) / kRowsOfTask;
    std::vector<float> parts(tasks * width, 0.0f);
    ForRanges(context, tasks, kRowsOfTask * width, [&](int64_t first, int64_t end) {
      for (int64_t task = first; task < end; ++task) {
        int64_t row = task * kRowsOfTask;
        const int64_t last = std::min(height, row + kRowsOfTask);
        float* part = &parts[task * width];
        for (; row + kRowsAtOnce <= last; row += kRowsAtOnce) Add<kRowsAtOnce>(from + row * width, width, part);
        for (; row < last; ++row) Add<1>(from + row * width, width, part);
      }
    });
    float* to = Floats(output);
    std::fill_n(to, width, 0.0f);
    for (int64_t task = 0; task < tasks; ++task) Add<1>(&parts[task * width], width, to);
  }

 private:
  static constexpr int kRowsAtOnce = 8;

  template <int rows>
  static void Add(const float* from, int64_t width, float* to) {
    ByLanes(width, [=](int64_t place, int count) {
      Lanes sum = LoadSome(to + place, count);
      for (int row = 0; row < rows; ++row) sum += LoadSome(from + row * width + place, count);
      StoreSome(to + place, sum, count);
    });
  }
};

REGISTER_OP("BertGelu")
    .Input("x: float")
    .Input("bias: float")
    .Output("y: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_OP("BertGeluGrad")
    .Input("y_gradient: float")
    .Input("x: float")
    .Input("bias: float")
    .Output("x_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 1); });

REGISTER_OP("BertAddNorm")
    .Attr("least: int")
    .Attr("scale: float")
    .Attr("epsilon: float")
    .Input("inputs: float")
    .Input("bias: float")
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
    .Input("bias: float")
    .Input("residual: float")
    .Input("draws: int16")
    .Input("gamma: float")
    .Output("inputs_gradient: float")
    .Output("residual_gradient: float")
    .Output("gamma_gradient: float")
    .Output("beta_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      for (int output = 0; output < 4; ++output) context->set_output(output, context->input(output < 2 ? 1 : 5));
      return tensorflow::Status();
    });

REGISTER_OP("BertCrossEntropy")
    .Input("logits: float")
    .Input("labels: int32")
    .Output("losses: float")
    .Output("most: float")
    .Output("shares: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 1); });

REGISTER_OP("BertCrossEntropyGrad")
    .Input("gradient: float")
    .Input("logits: float")
    .Input("labels: int32")
    .Input("most: float")
    .Input("shares: float")
    .Output("logits_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 1); });

REGISTER_OP("BertSumOfRows").Input("rows: float").Output("sum: float").SetShapeFn(
    [](tensorflow::shape_inference::InferenceContext* context) {
      tensorflow::shape_inference::ShapeHandle rows;
      const tensorflow::Status status = context->WithRank(context->input(0), 2, &rows);
      if (status.ok()) context->set_output(0, context->Vector(context->Dim(rows, 1)));
      return status;
    });

REGISTER_KERNEL_BUILDER(Name("BertGelu").Device(DEVICE_CPU), BertGelu);
REGISTER_KERNEL_BUILDER(Name("BertGeluGrad").Device(DEVICE_CPU), BertGeluGrad);
REGISTER_KERNEL_BUILDER(Name("BertAddNorm").Device(DEVICE_CPU), BertAddNorm);
REGISTER_KERNEL_BUILDER(Name("BertAddNormGrad").Device(DEVICE_CPU), BertAddNormGrad);
REGISTER_KERNEL_BUILDER(Name("BertCrossEntropy").Device(DEVICE_CPU), BertCrossEntropy);
REGISTER_KERNEL_BUILDER(Name("BertCrossEntropyGrad").Device(DEVICE_CPU), BertCrossEntropyGrad);
REGISTER_KERNEL_BUILDER(Name("BertSumOfRows").Device(DEVICE_CPU), BertSumOfRows);

}  // namespace
