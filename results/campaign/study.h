// What the cells of a sweep say together: which rule to use, at which budget, with how many examples, and whether the
// tail is enough. Computed once; the collected file, the table, JSON and the report say the same.
#pragma once

#include <string>
#include <vector>

#include "results/campaign/collection.h"
#include "results/campaign/rule_ranks.h"
#include "results/campaign/tail_agreement.h"

namespace winnow::campaign {

struct Study {
  RuleRanks ranks;
  std::vector<const CollectedCell*> calibrations;  // of the collection, one for each measurement, with `stability`
  std::vector<TailAgreement> tails;
  // What that means, in sentences; empty where there is nothing of it.
  std::string rules_answer, examples_answer, tail_answer;

  bool is_empty() const { return ranks.is_empty() && calibrations.empty() && tails.empty(); }
};

// `read` gets the tables per example of two calibrations that are to be compared. The collection must outlive the
// study. Throws what `read` throws.
Study make_study(const Collection& collection, const ReadResults& read);

}  // namespace winnow::campaign
