// safetensors files, one or sharded: what is read, and what each malformed file is refused with.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "base/json.h"
#include "base/text_file.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "tests/model/model_files.h"

namespace winnow::model {
namespace {

using testing::expect_error;
using testing::safetensors_image;
using testing::TempDir;

std::map<std::string, kernels::HostTensor> parse(const std::string& image) {
  return parse_safetensors(std::as_bytes(std::span(image)), "file");
}

void expect_refused(const std::string& image, const std::vector<std::string>& parts) {
  expect_error(ExitCode::kBadData, parts, [&] { parse(image); });
}

// The header of one tensor "t" with these fields as JSON.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

// ---- well-formed ----------------------------------------------------------------------------------------------------

TEST(Safetensors, ReadsTensorsInAnyOrderWithMetadataAndPadding) {
  const std::string header =
      R"({"b":{"dtype":"F32","shape":[1,2],"data_offsets":[2,10]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"e":{"dtype":"F16","shape":[0,7],"data_offsets":[2,2]},)"
      R"("i":{"dtype":"I64","shape":[],"data_offsets":[10,18]}}   )";
  std::string data(18, '\0');
  const float values[2] = {1.5F, -2.0F};
  std::memcpy(data.data() + 2, values, sizeof values);
  const std::string image = safetensors_image(header, data);
  const auto tensors = parse(image);
  ASSERT_EQ(tensors.size(), 4U);
  const kernels::HostTensor& b = tensors.at("b");
  EXPECT_EQ(b.dtype, kernels::DType::kF32);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(b.name, "file: tensor \"b\"");
  float read[2];
  std::memcpy(read, b.data, sizeof read);  // not aligned: the data begin at an odd offset
  EXPECT_EQ(read[0], 1.5F);
  EXPECT_EQ(read[1], -2.0F);
  EXPECT_EQ(tensors.at("a").dtype, kernels::DType::kBf16);
  EXPECT_EQ(tensors.at("e").dtype, kernels::DType::kF16);
  EXPECT_EQ(tensors.at("e").count(), 0);
  EXPECT_EQ(tensors.at("i").dtype, kernels::DType::kOther);
  EXPECT_EQ(tensors.at("i").dtype_name, "I64");
  EXPECT_EQ(tensors.at("i").count(), 1);
}

TEST(Safetensors, ReadsAFileWithoutTensors) { EXPECT_TRUE(parse(safetensors_image("{}", "")).empty()); }

TEST(Safetensors, KnowsSubByteTypes) {
  EXPECT_EQ(parse(safetensors_image(one(R"("F4")", "[4]", "[0,2]"), "xx")).at("t").dtype, kernels::DType::kOther);
  expect_refused(safetensors_image(one(R"("F4")", "[3]", "[0,2]"), "xx"), {"whole bytes of F4", "[3]"});
}

// ---- other files ----------------------------------------------------------------------------------------------------

TEST(Safetensors, NamesFilesOfOtherKinds) {
  const std::string more(1000, 'x');
  expect_refused("version https://git-lfs.github.com/spec/v1\noid sha256:0f0f\nsize 3087467144\n",
                 {"file: expected a safetensors file, found a Git LFS pointer", "git lfs pull"});
  expect_refused("<!DOCTYPE html>\n<html>" + more, {"found a web page"});
  expect_refused("\n  <?xml version=\"1.0\"?><Error>" + more, {"found a web page or XML"});
  expect_refused("GGUF" + std::string("\3\0\0\0", 4) + more, {"GGUF", "llama.cpp"});
  expect_refused(std::string("PK\3\4\0\0\10\10", 8) + more, {"zip", "pickle", "safetensors"});
  expect_refused("\x80\2}q\1(X" + more, {"pickle"});
  expect_refused("\x1f\x8b\10" + more, {"compressed", "unpack"});
  expect_refused("(\xb5/\xfd" + more, {"compressed"});
  expect_refused(std::string(257, 'n') + "ustar" + more, {"tar file"});
  expect_refused(std::string("\x89HDF\r\n\x1a\n", 8) + more, {"HDF5"});
  expect_refused(R"({"error":"Access to model is restricted"})", {"JSON", "download"});
  expect_refused(std::string(4096, '\0'), {"zeros", "interrupted download"});
  // A header may begin as another file does: its length alone is then "<" and zeros.
  EXPECT_EQ(parse(safetensors_image("{}" + std::string('<' - 2, ' '), "")).size(), 0U);
}

// ---- malformed ------------------------------------------------------------------------------------------------------

TEST(Safetensors, RefusesAFileShorterThanItsLength) {
  expect_refused("", {"file: expected", "at least 8 bytes", "found 0 bytes"});
  expect_refused("1234567", {"found 7 bytes"});
}

TEST(Safetensors, RefusesAHeaderBeyondTheFile) {
  std::string image = safetensors_image("{}", "");
  image[0] = 3;
  expect_refused(image, {"a header of 3 bytes", "ends after 2"});
}

TEST(Safetensors, RefusesAHeaderBeyondTheLimit) {
  std::string image = safetensors_image("{}", "");
  std::memset(image.data(), 0xFF, 8);
  expect_refused(image, {"a header of at most 100000000 bytes", "18446744073709551615"});
}

TEST(Safetensors, RefusesAHeaderThatIsNoJson) {
  expect_refused(safetensors_image("", ""), {"header", "begins with {"});
  expect_refused(safetensors_image("[]", ""), {"begins with {", "found \"[\""});
  expect_refused(safetensors_image("{\"a\n", ""), {"file: header: not JSON"});
  expect_refused(safetensors_image("{} {}", ""), {"not JSON"});
  expect_refused(safetensors_image("{\"\xFF\":1}", ""), {"not JSON"});
  expect_refused(safetensors_image("{\"a\":1e999}", ""), {"not JSON"});
}

TEST(Safetensors, RefusesATruncatedFile) {
  std::string image = safetensors_image({{"t", "F32", {4}}});
  image.pop_back();
  expect_refused(image, {"tensor \"t\"", "within the file's 15 bytes", "found 16", "truncated"});
}

TEST(Safetensors, RefusesBytesThatNoTensorCovers) {
  expect_refused(safetensors_image({{"t", "F32", {4}}}) + "x", {"expected 16 bytes of data", "found 17"});
}

TEST(Safetensors, RefusesAKeyThatIsThereTwice) {
  const std::string t = R"("t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_refused(safetensors_image("{" + t + "," + t + "}", ""), {"key \"t\" is there twice"});
  expect_refused(safetensors_image(R"({"t":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}})", ""),
                 {"key \"dtype\" is there twice"});
  expect_refused(safetensors_image(R"({"__metadata__":{},"__metadata__":{}})", ""), {"__metadata__", "twice"});
}

TEST(Safetensors, RefusesReversedOffsets) {
  expect_refused(safetensors_image(one(R"("U8")", "[4]", "[4,0]"), "xxxx"),
                 {"tensor \"t\", data_offsets", "begin <= end", "[4,0]"});
}

TEST(Safetensors, RefusesOffsetsBeyondTheEnd) {
  expect_refused(safetensors_image(one(R"("U8")", "[4]", "[100,104]"), "xxxx"), {"tensor \"t\"", "4 bytes", "104"});
  expect_refused(safetensors_image(one(R"("U8")", "[4]", "[9223372036854775807,9223372036854775811]"), "xxxx"),
                 {"tensor \"t\"", "two integers"});
}

TEST(Safetensors, RefusesOverlap) {
  expect_refused(safetensors_image(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                   R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                                   "xxxxxx"),
                 {"tensor \"b\"", "expected a begin of 4", "found 2", "overlap"});
  expect_refused(safetensors_image(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                   R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                                   "xxxx"),
                 {"overlap"});
}

TEST(Safetensors, RefusesAHole) {
  expect_refused(safetensors_image(one(R"("U8")", "[4]", "[1,5]"), "xxxxx"),
                 {"tensor \"t\"", "expected a begin of 0", "found 1", "hole"});
}

TEST(Safetensors, RefusesOffsetsThatDoNotMatchShapeAndDtype) {
  expect_refused(safetensors_image(one(R"("F32")", "[2,3]", "[0,12]"), std::string(12, 'x')),
                 {"tensor \"t\"", "expected 24 bytes for shape [2,3] of F32", "found 12 bytes"});
}

TEST(Safetensors, RefusesAShapeThatOverflows) {
  expect_refused(safetensors_image(one(R"("F32")", "[4294967296,4294967296]", "[0,0]"), ""),
                 {"tensor \"t\", shape", "below 2^64 bits", "[4294967296,4294967296]"});
  // 2^63 elements of 16 bits wrap to 0 bytes.
  expect_refused(safetensors_image(one(R"("BF16")", "[2,4611686018427387904]", "[0,0]"), ""), {"below 2^64 bits"});
  expect_refused(safetensors_image(one(R"("BF16")", "[18446744073709551615]", "[0,0]"), ""), {"from 0 to 2^63 - 1"});
}

TEST(Safetensors, RefusesUnknownDtypes) {
  expect_refused(safetensors_image(one(R"("BF17")", "[1]", "[0,2]"), "xx"), {"tensor \"t\", dtype", "\"BF17\""});
  expect_refused(safetensors_image(one("3", "[1]", "[0,2]"), "xx"), {"tensor \"t\", dtype", "found 3"});
}

TEST(Safetensors, RefusesFieldsOfOtherTypes) {
  expect_refused(safetensors_image(R"({"t":[1]})", ""), {"tensor \"t\"", "an object with dtype", "[1]"});
  expect_refused(safetensors_image(R"({"t":{"shape":[],"data_offsets":[0,0]}})", ""), {"a field \"dtype\"", "none"});
  expect_refused(safetensors_image(R"({"t":{"dtype":"U8","data_offsets":[0,0]}})", ""), {"a field \"shape\""});
  expect_refused(safetensors_image(R"({"t":{"dtype":"U8","shape":[0]}})", ""), {"a field \"data_offsets\""});
  expect_refused(safetensors_image(one(R"("U8")", "4", "[0,4]"), "xxxx"), {"shape", "a list of integers", "found 4"});
  expect_refused(safetensors_image(one(R"("U8")", "[-4]", "[0,4]"), "xxxx"), {"shape", "[-4]"});
  expect_refused(safetensors_image(one(R"("U8")", "[4.0]", "[0,4]"), "xxxx"), {"shape", "[4.0]"});
  expect_refused(safetensors_image(one(R"("U8")", "[4]", "[0,4,8]"), "xxxx"), {"two integers", "[0,4,8]"});
  expect_refused(safetensors_image(one(R"("U8")", "[4]", R"(["0",4])"), "xxxx"), {"two integers"});
  expect_refused(safetensors_image(R"({"__metadata__":{"a":1}})", ""), {"__metadata__", "an object of strings"});
  expect_refused(safetensors_image(R"({"__metadata__":"x"})", ""), {"__metadata__"});
}

TEST(Safetensors, RefusesDeepNestingWithoutRecursion) {
  const std::string deep = R"({"t":)" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  expect_refused(safetensors_image(deep, ""), {"nested deeper than 64"});
}

TEST(Safetensors, MessagesStayOneShortLine) {
  const std::string name = "a\\nb" + std::string(5000, 'c');
  expect_refused(safetensors_image(R"({")" + name + R"(":1})", ""), {"a\\nbccc", "..."});
}

// ---- files ----------------------------------------------------------------------------------------------------------

const std::string kIndex = "model.safetensors.index.json";

std::string index_of(const std::string& weight_map) { return R"({"metadata":{},"weight_map":)" + weight_map + "}"; }

void expect_checkpoint_error(const TempDir& dir, ExitCode code, const std::vector<std::string>& parts) {
  expect_error(code, parts, [&] { Checkpoint checkpoint(dir.path()); });
}

TEST(Checkpoint, ReadsOneFile) {
  const TempDir dir;
  dir.write("model.safetensors", safetensors_image({{"a", "F32", {2, 3}}, {"b", "F8_E4M3", {4}}}));
  const Checkpoint checkpoint(dir.path());
  EXPECT_EQ(checkpoint.files().size(), 1U);
  EXPECT_EQ(checkpoint.size_bytes(),
            static_cast<int64_t>(std::filesystem::file_size(dir.path() / "model.safetensors")));
  EXPECT_EQ(checkpoint.get("a", {2, 3}).count(), 6);
  EXPECT_TRUE(checkpoint.contains("b"));
  expect_error(ExitCode::kBadData, {"model.safetensors: tensor \"a\"", "expected shape [3,2]", "found [2,3]"}, [&] {
    checkpoint.get("a", {3, 2});
  });
  expect_error(ExitCode::kBadData, {"tensor \"b\"", "expected dtype BF16, F16 or F32", "found F8_E4M3", "quantised"},
               [&] { checkpoint.get("b", {4}); });
  expect_error(ExitCode::kBadData, {dir.path().string(), "tensor \"c\"", "expected shape [1]", "no such tensor"},
               [&] { checkpoint.get("c", {1}); });
}

TEST(Checkpoint, NamesPackedWeights) {
  const TempDir dir;
  dir.write("model.safetensors", safetensors_image({{"l.qweight", "F16", {2}}}));
  const Checkpoint checkpoint(dir.path());
  expect_error(ExitCode::kBadData, {"tensor \"l.weight\"", "packed", "quantised"},
               [&] { checkpoint.get("l.weight", {2}); });
}

TEST(Checkpoint, ReadsShards) {
  const TempDir dir;
  dir.write("a.safetensors", safetensors_image({{"x", "F32", {2}}}));
  dir.write("b.safetensors", safetensors_image({{"y", "BF16", {3}}, {"unlisted", "BF16", {1}}}));
  dir.write(kIndex, index_of(R"({"y":"b.safetensors","x":"a.safetensors"})"));
  const Checkpoint checkpoint(dir.path());
  ASSERT_EQ(checkpoint.files().size(), 2U);
  EXPECT_EQ(checkpoint.files()[0]->path().filename(), "a.safetensors");
  EXPECT_EQ(checkpoint.get("x", {2}).dtype, kernels::DType::kF32);
  EXPECT_EQ(checkpoint.get("y", {3}).dtype, kernels::DType::kBf16);
  EXPECT_TRUE(checkpoint.contains("unlisted"));
}

// As in Transformers: a base model's names have no "model.", and one that was wrapped has two.
TEST(Checkpoint, ReadsNamesWithOneMoreOrLess) {
  const TempDir dir;
  const auto read = [&](const std::string& prefix, const std::string& head) {
    dir.write("model.safetensors", safetensors_image({{prefix + "embed_tokens.weight", "F32", {2, 3}},
                                                      {prefix + "layers.0.mlp.up_proj.weight", "F32", {4}},
                                                      {prefix + "norm.weight", "F32", {3}},
                                                      {head + "lm_head.weight", "F32", {5}},
                                                      {"extra", "F32", {1}}}));
    const Checkpoint checkpoint(dir.path());
    EXPECT_EQ(checkpoint.get("model.embed_tokens.weight", {2, 3}).count(), 6);
    EXPECT_EQ(checkpoint.get("model.layers.0.mlp.up_proj.weight", {4}).count(), 4);
    EXPECT_EQ(checkpoint.get("model.norm.weight", {3}).count(), 3);
    EXPECT_EQ(checkpoint.get("lm_head.weight", {5}).count(), 5);
    EXPECT_TRUE(checkpoint.contains("extra"));
    // Messages keep the name that the file has.
    EXPECT_NE(checkpoint.get("model.norm.weight", {3}).name.find("\"" + prefix + "norm.weight\""), std::string::npos);
  };
  read("model.", "");
  read("", "");
  read("model.model.", "model.");
}

TEST(Checkpoint, ShowsAPrefixThatIsNotTakenOff) {
  const TempDir dir;
  for (const std::string prefix : {"_orig_mod.model.", "module.model.", "text_model.model.", "language_model.",
                                   "transformer.", "model._orig_mod."}) {
    dir.write("model.safetensors", safetensors_image({{prefix + "embed_tokens.weight", "F32", {2, 3}},
                                                      {prefix + "layers.0.mlp.up_proj.weight", "F32", {4}},
                                                      {"vision.weight", "F32", {1}}}));
    const Checkpoint checkpoint(dir.path());
    const std::string shown = prefix.ends_with(".model.") ? prefix.substr(0, prefix.size() - 6) : prefix;
    expect_error(ExitCode::kBadData,
                 {"tensor \"model.layers.0.mlp.up_proj.weight\"", "expected shape [4]", "no such tensor but",
                  "\"" + prefix + "layers.0.mlp.up_proj.weight\"", "2 of 3 names begin with \"" + shown + "\""},
                 [&] { checkpoint.get("model.layers.0.mlp.up_proj.weight", {4}); });
  }
  dir.write("model.safetensors", safetensors_image({{"h.0.attn.c_attn.weight", "F32", {2}}, {"wte", "F32", {1}}}));
  const Checkpoint other(dir.path());
  expect_error(ExitCode::kBadData, {"no such tensor among 2, such as \"h.0.attn.c_attn.weight\", \"wte\""},
               [&] { other.get("model.norm.weight", {3}); });
}

TEST(Checkpoint, ReadsTheTowerForTextAlone) {
  const TempDir dir;
  for (const auto& [prefix, head] : {std::pair("language_model.model.", "language_model.lm_head.weight"),
                                     std::pair("model.language_model.", "lm_head.weight")}) {
    dir.write("model.safetensors", safetensors_image({{prefix + std::string("embed_tokens.weight"), "F32", {2, 3}},
                                                      {prefix + std::string("norm.weight"), "F32", {3}},
                                                      {head, "F32", {2, 3}},
                                                      {"vision_tower.patch.weight", "F32", {4}},
                                                      {"model.visual.blocks.0.weight", "F32", {4}},
                                                      {"multi_modal_projector.weight", "F32", {4}}}));
    const Checkpoint checkpoint(dir.path());
    EXPECT_EQ(checkpoint.tensors().size(), 3U) << prefix;
    EXPECT_EQ(checkpoint.get("model.embed_tokens.weight", {2, 3}).rows(), 2) << prefix;
    EXPECT_TRUE(checkpoint.contains("model.norm.weight") && checkpoint.contains("lm_head.weight")) << prefix;
  }
}

TEST(Checkpoint, TakesTheTypeOfTheFirstTensorThatItComputesWith) {
  const TempDir dir;
  dir.write("model.safetensors", safetensors_image({{"a", "I8", {4}}, {"b", "BF16", {1}}, {"c", "F32", {1}}}));
  EXPECT_EQ(Checkpoint(dir.path()).dtype(), kernels::DType::kBf16);
}

TEST(Checkpoint, FollowsLinksAsTheHubsCacheHasThem) {
  const TempDir dir;
  std::filesystem::create_directories(dir.path() / "blobs");
  std::filesystem::create_directories(dir.path() / "snapshot");
  dir.write("blobs/x", safetensors_image({{"x", "F32", {2}}}));
  std::filesystem::create_symlink("../blobs/x", dir.path() / "snapshot" / "model.safetensors");
  EXPECT_EQ(Checkpoint(dir.path() / "snapshot").tensors().size(), 1U);
}

TEST(Checkpoint, RefusesMissingInput) {
  const TempDir dir;
  expect_error(ExitCode::kNoInput, {"absent", "expected a directory", "nothing of that name"},
               [&] { Checkpoint checkpoint(dir.path() / "absent"); });
  const auto file = dir.write("file", "x");
  expect_error(ExitCode::kNoInput, {"expected a directory", "found a file"}, [&] { Checkpoint checkpoint(file); });
  // Nobody writes into these pipes: to wait for it would be for ever.
  const auto pipe = dir.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_error(ExitCode::kNoInput, {"pipe", "not a regular file"}, [&] { MappedFile mapped(pipe); });
  expect_error(ExitCode::kNoInput, {"pipe", "not a regular file"}, [&] { read_text(pipe, 10); });
  std::filesystem::remove(file);
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"expected model.safetensors or " + kIndex, "neither"});
  dir.write("pytorch_model.bin", "x");
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"pytorch_model.bin"});
  std::filesystem::create_directories(dir.path() / "model.safetensors");
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"model.safetensors", "not a regular file"});
  std::filesystem::remove(dir.path() / "model.safetensors");
  std::filesystem::create_symlink("blobs/absent", dir.path() / "model.safetensors");
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"model.safetensors", "link to a file that is not there"});
  std::filesystem::remove(dir.path() / "model.safetensors");
  std::filesystem::create_symlink("model.safetensors", dir.path() / "model.safetensors");
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"model.safetensors", "cannot be read", "symbolic links"});
}

TEST(Checkpoint, RefusesAnUnreadableFile) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
  const TempDir dir;
  const auto file = dir.write("model.safetensors", "x");
  chmod(file.c_str(), 0);
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"model.safetensors", "cannot be read", "Permission denied"});
}

TEST(Checkpoint, RefusesAnEmptyFile) {
  const TempDir dir;
  dir.write("model.safetensors", "");
  expect_checkpoint_error(dir, ExitCode::kBadData, {"model.safetensors", "found 0 bytes"});
}

TEST(Checkpoint, RefusesMalformedIndices) {
  const TempDir dir;
  const auto refused = [&](const std::string& index, const std::vector<std::string>& parts) {
    dir.write(kIndex, index);
    expect_checkpoint_error(dir, ExitCode::kBadData, parts);
  };
  refused("{", {kIndex, "not JSON"});
  refused("[]", {kIndex, "top level", "an object"});
  refused("{}", {"weight_map", "found null"});
  refused(index_of("{}"), {"weight_map", "found {}"});
  refused(index_of(R"({"x":1})"), {"tensor \"x\"", "a file name", "found 1"});
  refused(index_of(R"({"x":"a","x":"b"})"), {"key \"x\" is there twice"});
  for (const char* name : {"", ".", "..", "../a.safetensors", "/etc/passwd", "sub/a", "a\\\\b", "a\\u0000b"}) {
    refused(index_of(std::string(R"({"x":")") + name + R"("})"),
            {"tensor \"x\"", "the name of a file in the same directory"});
  }
}

TEST(Checkpoint, RefusesAnAbsentShard) {
  const TempDir dir;
  dir.write(kIndex, index_of(R"({"x":"a.safetensors"})"));
  expect_checkpoint_error(dir, ExitCode::kNoInput, {"a.safetensors", "expected this shard", kIndex});
}

TEST(Checkpoint, RefusesATensorThatIsNotInItsShard) {
  const TempDir dir;
  dir.write("a.safetensors", safetensors_image({{"x", "F32", {2}}}));
  dir.write("b.safetensors", safetensors_image({{"y", "F32", {2}}}));
  dir.write(kIndex, index_of(R"({"x":"b.safetensors","y":"a.safetensors"})"));
  expect_checkpoint_error(dir, ExitCode::kBadData,
                          {kIndex, "tensor \"x\"", "expected in \"b.safetensors\"", "found in \"a.safetensors\""});
  dir.write(kIndex, index_of(R"({"x":"a.safetensors","z":"b.safetensors"})"));
  expect_checkpoint_error(dir, ExitCode::kBadData, {"tensor \"z\"", "found in no shard"});
}

TEST(Checkpoint, RefusesATensorInTwoShards) {
  const TempDir dir;
  dir.write("a.safetensors", safetensors_image({{"x", "F32", {2}}}));
  dir.write("b.safetensors", safetensors_image({{"x", "F32", {2}}, {"y", "F32", {2}}}));
  dir.write(kIndex, index_of(R"({"x":"a.safetensors","y":"b.safetensors"})"));
  expect_checkpoint_error(dir, ExitCode::kBadData,
                          {"b.safetensors: tensor \"x\"", "expected in one shard", "\"a.safetensors\""});
}

}  // namespace
}  // namespace winnow::model
