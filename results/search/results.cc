#include "results/search/results.h"

#include "results/stats/resampling.h"

namespace winnow::search {

PatternMeans ExampleFigures::means() const {
  PatternMeans means{.nll_nats = stats::mean_of(nll), .exact_match = stats::mean_of(exact_match)};
  means.token_accuracy = stats::mean_of(token_accuracy);
  if (!kl.empty()) means.kl_nats = stats::mean_of(kl);
  return means;
}

}  // namespace winnow::search
