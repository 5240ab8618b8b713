// The variables of /evaluation about losses.
#pragma once

#include <optional>

#include "results/evaluation/evaluation.h"
#include "results/storage/hdf5.h"

namespace winnow::evaluation {

void write_losses(storage::Group& group, const Losses& losses, const EvaluationTable& table);
// Reads the margin that was given and the bounds, of which the rest follows; none for a file without them. `full` is
// the pattern with full attention.
std::optional<Losses> read_losses(const storage::Group& group, const EvaluationTable& table, int64_t full);

}  // namespace winnow::evaluation
