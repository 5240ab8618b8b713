#include "model/layer_ring.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <vector>

namespace winnow::model {
namespace {

// Checks the order of calls that keeps copies and operations apart, and counts layers.
class CheckedQueue final : public kernels::WeightQueue {
 public:
  void begin(std::size_t slot) override {
    EXPECT_NE(slot, entered_) << "filled while its operations are asked for";
    EXPECT_FALSE(filling_) << "two slots are filled at a time";
    filling_ = slot;
  }
  kernels::Matrix load(const kernels::HostTensor& /*source*/, kernels::WeightUse /*use*/,
                       std::span<const std::byte> /*staged*/, std::span<std::byte> /*packed*/,
                       std::span<std::byte> /*storage*/) override {
    return {};
  }
  void end(std::size_t slot) override {
    EXPECT_EQ(slot, filling_);
    filling_.reset();
    filled_.insert(slot);
  }
  void enter(std::size_t slot) override {
    EXPECT_FALSE(entered_) << "entered while another one is not left";
    EXPECT_EQ(filled_.count(slot), 1U) << "entered before it was filled";
    entered_ = slot;
  }
  void leave(std::size_t slot) override {
    EXPECT_EQ(slot, entered_);
    entered_.reset();
  }

 private:
  std::optional<std::size_t> filling_;
  std::optional<std::size_t> entered_;
  std::set<std::size_t> filled_;
};

std::vector<int64_t> first_layers(int64_t n) {
  std::vector<int64_t> layers(static_cast<std::size_t>(n));
  std::iota(layers.begin(), layers.end(), 0);
  return layers;
}

TEST(LayerRing, EachPassLoadsEachLayerOnce) {
  for (const std::size_t n_buffers : {1, 2, 3, 4}) {
    for (std::size_t n_ahead = 0; n_ahead < n_buffers; ++n_ahead) {
      for (const int64_t n_layers : {5, 6, 7}) {
        CheckedQueue queue;
        std::map<std::size_t, int64_t> content;
        int n_loads = 0;
        LayerRing ring(first_layers(n_layers), n_buffers, n_ahead, queue, [&](int64_t layer, std::size_t buffer) {
          content[buffer] = layer;
          ++n_loads;
        });
        constexpr int kPasses = 4;
        for (int pass = 0; pass < kPasses; ++pass) {
          for (int64_t layer = 0; layer < n_layers; ++layer) {
            const std::size_t buffer = ring.enter(layer);
            ASSERT_LT(buffer, n_buffers);
            EXPECT_EQ(content[buffer], layer);
          }
        }
        // Those that follow the last are there already.
        EXPECT_EQ(n_loads, kPasses * n_layers + static_cast<int64_t>(n_ahead)) << n_buffers << n_ahead << n_layers;
      }
    }
  }
}

// What is read from the map takes the processor's time: the buffer that is filled must be the one whose operations are
// done, not the one before.
TEST(LayerRing, BuffersTakeTurns) {
  CheckedQueue queue;
  LayerRing ring(first_layers(6), 2, 0, queue, [](int64_t, std::size_t) {});
  std::size_t last = ring.enter(0);
  for (int64_t layer = 1; layer < 12; ++layer) {
    const std::size_t buffer = ring.enter(layer % 6);
    EXPECT_NE(buffer, last) << layer;
    last = buffer;
  }
}

TEST(LayerRing, AnyOrderIsRight) {
  CheckedQueue queue;
  std::map<std::size_t, int64_t> content;
  LayerRing ring({1, 3, 4, 8, 9}, 2, 1, queue, [&](int64_t layer, std::size_t buffer) { content[buffer] = layer; });
  for (const int64_t layer : {9, 1, 8, 8, 3, 1, 4, 9, 3}) EXPECT_EQ(content[ring.enter(layer)], layer);
  ring.leave();
  ring.leave();  // nothing is entered any more
  ring.expect_after(5);
  std::set<int64_t> held;
  for (const auto& [buffer, layer] : content) held.insert(layer);
  EXPECT_EQ(held.count(8), 1U) << "the first one after layer 5";
}

TEST(Residency, KeepsSoManyAndSpreadsThem) {
  for (int64_t n_layers = 1; n_layers < 40; ++n_layers) {
    for (int64_t n_kept = 0; n_kept <= n_layers; ++n_kept) {
      const Residency residency{.n_layers = n_layers, .n_kept = n_kept, .n_buffers = 2};
      int64_t kept = 0;
      for (int64_t layer = 0; layer < n_layers; ++layer) {
        EXPECT_EQ(residency.kept_before(layer), kept);
        if (residency.keeps(layer)) ++kept;
      }
      EXPECT_EQ(kept, n_kept);
      EXPECT_EQ(static_cast<int64_t>(residency.streamed().size()), n_layers - n_kept);
      EXPECT_EQ(residency.n_slots(), n_kept == n_layers ? n_layers : n_kept + 2);
    }
  }
  const Residency half{.n_layers = 6, .n_kept = 3, .n_buffers = 2};
  EXPECT_EQ(half.streamed(), (std::vector<int64_t>{0, 2, 4}));
}

}  // namespace
}  // namespace winnow::model
