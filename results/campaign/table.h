// A collection as text: for the terminal, and as JSON for machines.
#pragma once

#include <string>

#include "results/campaign/study.h"

namespace winnow::campaign {

// Returns one line a cell, then why cells have no results, then how well rankings agree, then the study. Ends with a
// newline.
std::string to_table(const Collection& collection, const RankAgreement& agreement, const Study& study = {});
// Returns the same as one JSON object, with the pairs one by one. `file`: where the collection was written.
std::string to_json(const Collection& collection, const RankAgreement& agreement, const std::string& file,
                    const Study& study = {});

}  // namespace winnow::campaign
