// Products of some rows with a matrix, on one thread, their sums in registers.

#ifndef TRAINING_PRODUCTS_H_
#define TRAINING_PRODUCTS_H_

#include <algorithm>
#include <cstddef>
#include <memory>

#include "training/lanes.h"

namespace {  // what one source uses once is compiled into its place

// So many sums stay in registers beside a row of a panel and what that is multiplied by.
constexpr int kRows = 6;
#ifdef __AVX512F__
constexpr int kVectors = 4;  // of 32 registers
#else
constexpr int kVectors = 2;  // of 16
#endif
constexpr int kAlone = 12;  // sums of a single row: fewer would wait for each other

inline int Groups(int columns) { return (columns + kLanes - 1) / kLanes; }

// Some columns of a matrix: `depth` rows, of which one begins `next` floats after the other.
struct Columns {
  const float* values;
  std::ptrdiff_t next;
  int depth;
};

// acc[r][v] += sum over k of inputs[r][k * step] * columns[k][v], for groups of lanes v; a row of acc has `stride` of
// them.
template <int rows, int vectors, int step = 1>
inline void Multiply(const float* const* inputs, Columns columns, Lanes* acc, int stride) {
  Lanes sums[rows][vectors];
  UNROLLED for (int r = 0; r < rows; ++r)
    UNROLLED for (int v = 0; v < vectors; ++v) sums[r][v] = acc[r * stride + v];
  for (int k = 0; k < columns.depth; ++k) {
    Lanes row[vectors];
    UNROLLED for (int v = 0; v < vectors; ++v) row[v] = Load(columns.values + k * columns.next + v * kLanes);
    UNROLLED for (int v = 0; v < vectors && rows > 1; ++v) Keep(row[v]);
    UNROLLED for (int r = 0; r < rows; ++r) {
      const Lanes factor = Fill(inputs[r][k * step]);
      UNROLLED for (int v = 0; v < vectors; ++v) sums[r][v] += factor * row[v];
    }
  }
  UNROLLED for (int r = 0; r < rows; ++r)
    UNROLLED for (int v = 0; v < vectors; ++v) acc[r * stride + v] = sums[r][v];
}

template <int vectors, int most = kRows>
inline void MultiplyRows(int rows, const float* const* inputs, Columns columns, Lanes* acc, int stride) {
  if (rows == most) return Multiply<most, vectors>(inputs, columns, acc, stride);
  MultiplyRows<vectors, (most > 1 ? most - 1 : 1)>(rows, inputs, columns, acc, stride);
}

template <int most = kVectors>
inline void MultiplyAny(int rows, int vectors, const float* const* inputs, Columns columns, Lanes* acc, int stride) {
  if (vectors == most) return MultiplyRows<most>(rows, inputs, columns, acc, stride);
  MultiplyAny<(most > 1 ? most - 1 : 1)>(rows, vectors, inputs, columns, acc, stride);
}

// The same of one row.
template <int step, int most = kAlone>
inline void MultiplyAlone(int vectors, const float* input, Columns columns, Lanes* acc) {
  if (vectors == most) return Multiply<1, most, step>(&input, columns, acc, most);
  MultiplyAlone<step, (most > 1 ? most - 1 : 1)>(vectors, input, columns, acc);
}

// From the last row of the columns to the first one.
inline void MultiplyAloneBack(int vectors, const float* input, Columns columns, Lanes* acc) {
  const int last = columns.depth - 1;
  MultiplyAlone<-1>(vectors, input + last, {columns.values + last * columns.next, -columns.next, columns.depth}, acc);
}

// Vectors on the heap, none across two lines of the cache, where each would be read twice.
class LanesArray {
 public:
  // Of `size` vectors at least; what was there is lost when they are more than ever before.
  Lanes* Room(size_t size) {
    size_t room = (size + 1) * sizeof(Lanes);
    if (room > room_) memory_.reset(new char[room_ = room]);
    void* begin = memory_.get();
    return static_cast<Lanes*>(std::align(sizeof(Lanes), size * sizeof(Lanes), begin, room));
  }

 private:
  size_t room_ = 0;
  std::unique_ptr<char[]> memory_;
};

// A matrix [depth, groups of lanes], as it is, or packed so that a product reads it from its beginning to its end:
// [panel][k][group][lane], `kVectors` groups a panel, the last one may have fewer.
class Panels {
 public:
  // lanes_of(k, group)
  template <typename LanesOf>
  void Pack(int depth, int groups, LanesOf lanes_of) {
    Reserve(depth, groups);
    for (int k = 0; k < depth; ++k)  // in the order in which rows are read
      ForEach([&](int group, int vectors) {
        Lanes* to = packed_ + static_cast<size_t>(group) * depth + static_cast<size_t>(k) * vectors;
        for (int v = 0; v < vectors; ++v) to[v] = lanes_of(k, group + v);
      });
  }

  // Room for a packed matrix, whose values are put there one after the other.
  void Reserve(int depth, int groups) {
    packed_ = memory_.Room(static_cast<size_t>(depth) * groups);
    Take(reinterpret_cast<float*>(packed_), depth, groups);
  }

  void Put(int k, int group, Lanes lanes) {
    const int first = group / kVectors * kVectors;
    packed_[static_cast<size_t>(first) * depth_ + k * Vectors(first) + group - first] = lanes;
  }

  // The matrix as it is.
  void Take(const float* values, int depth, int groups) {
    values_ = values;
    depth_ = depth;
    groups_ = groups;
  }

  // work(first group, groups) for each panel.
  template <typename Work>
  void ForEach(Work work) const {
    for (int group = 0; group < groups_; group += kVectors) work(group, Vectors(group));
  }

  // acc[r][v] += inputs [rows, depth] times the panel that begins with that group.
  void Multiply(int group, int rows, const float* const* inputs, Lanes* acc, int stride) const {
    const size_t group_size = packed_ ? static_cast<size_t>(depth_) * kLanes : kLanes;
    const int next = (packed_ ? Vectors(group) : groups_) * kLanes;
    MultiplyAny(rows, Vectors(group), inputs, {values_ + group * group_size, next, depth_}, acc, stride);
  }

 private:
  int Vectors(int group) const { return std::min(kVectors, groups_ - group); }

  int depth_ = 0, groups_ = 0;
  const float* values_ = nullptr;
  Lanes* packed_ = nullptr;
  LanesArray memory_;
};

// Runs `work(first row, rows)` over blocks of rows.
template <typename Work>
inline void ByRows(int active, Work work) {
  const int blocks = (active + kRows - 1) / kRows;
  for (int block = 0, first = 0; block < blocks; ++block) {  // of nearly equal size: few rows use a panel badly
    const int rows = (active - first) / (blocks - block);
    work(first, rows);
    first += rows;
  }
}

}  // namespace

#endif  // TRAINING_PRODUCTS_H_
