// What may be written where: links, hard links, pipes, folders, inputs, checkpoints, files of others.
#include "base/output_path.h"
#include "results/selection/selection.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "base/atomic_file.h"
#include "base/own_files.h"
#include "base/utf8.h"
#include "results/storage/own_hdf5.h"
#include "tests/scratch.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOwn = R"({"format": "winnow-selection"})";

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

class OutputPathTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(model() / "sub");
    write(model() / "config.json", "{}");
    write(root() / "blob", "weights");
    fs::create_symlink(root() / "blob", model() / "model.safetensors");
    write(root() / "data", "data");
  }
  fs::path root() const { return scratch_.path(); }
  fs::path model() const { return root() / "model"; }
  ReadPaths read() const { return {.files = {root() / "data"}, .checkpoints = {model()}}; }
  void check(const fs::path& path) const { check_outputs({selection::selection_output("--out", path)}, read()); }
  void refused(const fs::path& path, ExitCode code, const std::string& words) const {
    expect_error([&] { check(path); }, code, {"--out", words});
  }

  ScratchDirectory scratch_;
};

TEST_F(OutputPathTest, NothingThatIsReadIsWrittenOver) {
  refused(root() / "data", ExitCode::kUsage, "this command needs");
  refused(root() / "model" / ".." / "data", ExitCode::kUsage, "this command needs");
  fs::create_symlink("data", root() / "link");
  fs::create_symlink("link", root() / "chain");
  fs::create_hard_link(root() / "data", root() / "hard");
  for (const char* name : {"link", "chain", "hard"}) refused(root() / name, ExitCode::kUsage, "this command needs");
  refused(root() / "blob", ExitCode::kUsage, "this command needs");  // what the checkpoint's link leads to
}

TEST_F(OutputPathTest, NothingIsWrittenIntoACheckpointsFolder) {
  fs::create_directory_symlink(model(), root() / "folder");
  for (const char* name : {"model/new", "model/sub/new", "folder/new", "model/sub/../new"}) {
    refused(root() / name, ExitCode::kUsage, "in the folder of a checkpoint");
  }
  refused(model() / "model.safetensors", ExitCode::kUsage, "this command needs");
  for (const char* name : {"model", "model/sub", "model/run/deep", "folder"}) {
    expect_error(
        [&] { check_outputs({{.flag = "--out", .path = root() / name, .kind = Output::Kind::kFolder}}, read()); },
        ExitCode::kUsage, {"in the folder of a checkpoint"});
  }
  // Nor into that of another one.
  expect_error([&] { check_outputs({selection::selection_output("--out", model() / "new")}, {}); }, ExitCode::kUsage,
               {"in the folder of a checkpoint"});
}

TEST_F(OutputPathTest, FilesOfOthersStay) {
  write(root() / "notes", "my notes");
  refused(root() / "notes", ExitCode::kCannotCreate, "is not a selection");
  for (const char* text : {"{", "[]", R"({"format": "winnow-run"})", "\x89HDF\r\n\x1a\n"}) {
    write(root() / "other", text);
    refused(root() / "other", ExitCode::kCannotCreate, "is not a selection");
  }
  write(root() / "own", kOwn);
  write(root() / "empty", "");
  check(root() / "own");
  check(root() / "empty");
  fs::create_symlink("own", root() / "latest");
  fs::create_symlink("nowhere", root() / "dangling");
  for (const char* name : {"latest", "dangling"}) refused(root() / name, ExitCode::kCannotCreate, "is a link");
}

TEST_F(OutputPathTest, WhatIsNoFileIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((root() / "pipe").c_str(), 0600), 0);
  refused(root() / "pipe", ExitCode::kCannotCreate, "no regular file");
  refused("/dev/null", ExitCode::kCannotCreate, "no regular file");
  refused(root(), ExitCode::kCannotCreate, "is a directory");
  refused(root() / "", ExitCode::kCannotCreate, "is a directory");
  expect_error([&] { check("/proc/new"); }, ExitCode::kCannotCreate, {"/proc/new: cannot be created"});
  refused(root() / "missing" / "new", ExitCode::kCannotCreate, "a directory that is there");
  refused(root() / "data" / "new", ExitCode::kCannotCreate, "a directory that is there");
}

TEST_F(OutputPathTest, FoldersAreMadeWhereNothingIsInTheirPlace) {
  const auto check_folder = [&](const fs::path& path, Output::Kind kind) {
    check_outputs({{.flag = "", .path = path, .kind = kind}}, read());
  };
  check_folder(root() / "a" / "b" / "c", Output::Kind::kFolder);
  check_folder("new", Output::Kind::kFolder);
  EXPECT_FALSE(fs::exists(root() / "a"));
  write(root() / "file", "x");
  fs::create_directory(root() / "real");
  fs::create_directory_symlink("real", root() / "link");
  check_folder(root() / "link", Output::Kind::kFolder);
  expect_error([&] { check_folder(root() / "file", Output::Kind::kFolder); }, ExitCode::kCannotCreate,
               {"a file is in its place"});
  expect_error([&] { check_folder(root() / "file" / "b", Output::Kind::kFolder); }, ExitCode::kCannotCreate, {"file"});
  expect_error([&] { check_folder(root() / "link", Output::Kind::kOwnFolder); }, ExitCode::kCannotCreate,
               {"is a link"});
  expect_error([&] { check_folder(root() / "a" / "b", Output::Kind::kNewFolder); }, ExitCode::kCannotCreate,
               {"cannot be created"});
  check_folder(root() / "real", Output::Kind::kNewFolder);
  write(root() / "real" / "file", "x");
  expect_error([&] { check_folder(root() / "real", Output::Kind::kNewFolder); }, ExitCode::kCannotCreate, {"exists"});
}

TEST_F(OutputPathTest, TwoOutputsAreTwoFiles) {
  fs::create_directory_symlink(root(), root() / "again");
  expect_error(
      [&] {
        check_outputs(
            {selection::selection_output("--out", root() / "x"), storage::results_output("", root() / "again/x")},
            read());
      },
      ExitCode::kUsage, {"another of its outputs"});
}

TEST_F(OutputPathTest, ModesAreKeptAndANewFileFollowsTheUmask) {
  const mode_t before = ::umask(027);
  write_file_atomically(root() / "new", "x");
  write_file_atomically(root() / "program", "x", FileUse::kProgram);
  ::chmod((root() / "data").c_str(), 0604);
  write_file_atomically(root() / "data", "y");
  ::chmod((root() / "blob").c_str(), 0600);
  write_file_atomically(root() / "blob", "y");
  ::umask(before);
  EXPECT_EQ(mode_of(root() / "new"), 0640U);
  EXPECT_EQ(mode_of(root() / "program"), 0750U);
  EXPECT_EQ(mode_of(root() / "data"), 0604U);
  EXPECT_EQ(mode_of(root() / "blob"), 0600U);
}

TEST_F(OutputPathTest, OnlyLeftoversOfDeadWritersAreRemoved) {
  const auto name = [](char c) { return ".winnow-" + std::string(16, c) + ".part"; };
  write(root() / name('a'), "half");
  write(root() / name('b'), "somebody writes it");
  const int writer = ::open((root() / name('b')).c_str(), O_WRONLY);
  ASSERT_EQ(::flock(writer, LOCK_EX), 0);
  fs::create_symlink("data", root() / name('c'));
  write(root() / "shared", "two names");
  fs::create_hard_link(root() / "shared", root() / name('d'));
  fs::create_directory(root() / name('e'));
  ASSERT_EQ(::mkfifo((root() / name('f')).c_str(), 0600), 0);
  const std::vector<std::string> foreign = {"movie.iso.part", "results.h5.part",   ".winnow-short.part",
                                            ".winnow.part",   name('g'),           name('A'),
                                            "x" + name('a'),  name('a') + ".part", "part"};
  for (const std::string& file : foreign) write(root() / file, "theirs");
  remove_leftovers(root());
  EXPECT_FALSE(fs::exists(root() / name('a')));
  for (const char c : {'b', 'c', 'd', 'e', 'f'}) {
    EXPECT_TRUE(fs::exists(fs::symlink_status(root() / name(c)))) << c;
  }
  for (const std::string& file : foreign) EXPECT_EQ(text_of(root() / file), "theirs") << file;
  EXPECT_EQ(text_of(root() / "data"), "data");
  ::close(writer);
  remove_leftovers(root());
  EXPECT_FALSE(fs::exists(root() / name('b')));
}

TEST(TemporaryNames, AreOursAlone) {
  std::set<std::string> names;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = new_temporary_name();
    EXPECT_TRUE(is_temporary_name(name)) << name;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(EncodedPath, IsLossless) {
  std::string all;
  for (int c = 1; c < 256; ++c) all += static_cast<char>(c);
  EXPECT_EQ(decoded_path(encoded_path(all)), all);
  EXPECT_EQ(encoded_path("/models/mod\xe9le A"), "/models/mod%E9le%20A");
  EXPECT_EQ(decoded_path("100%/%zz%4"), "100%/%zz%4");
  EXPECT_EQ(decoded_path("%e9"), "\xe9");
}

TEST(Printable, LeavesNothingThatATerminalObeys) {
  EXPECT_EQ(printable("a\nb\tc\x1b[2J\x7f"), "a\nb?c?[2J?");
  EXPECT_EQ(one_line("a\nkind results"), "a?kind results");
  EXPECT_EQ(one_line("caf\xc3\xa9 \xe9\x9b\x9b \xf0\x9f\x98\x80"), "caf\xc3\xa9 \xe9\x9b\x9b \xf0\x9f\x98\x80");
  EXPECT_EQ(one_line("\xc2\x9b"
                     "31m \xe2\x80\xae \xe2\x81\xa6"),
            "?31m ? ?");
  // Latin-1, where 0x9b begins an escape: no part of a character.
  EXPECT_EQ(one_line("caf\xe9\x9b/x \x9b \xe9"), "caf\xe9?/x ? \xe9");
}

// ---- any names and links
// ---------------------------------------------------------------------------------------------

struct Snapshot {
  std::map<std::string, std::string> files;  // path below the root: kind, content, target
};

Snapshot snapshot_of(const fs::path& root) {
  Snapshot snapshot;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const fs::file_status status = entry.symlink_status();
    std::string what = std::to_string(static_cast<int>(status.type()));
    if (fs::is_symlink(status)) what += " to " + fs::read_symlink(entry.path()).string();
    if (fs::is_regular_file(status)) what += " with " + text_of(entry.path());
    snapshot.files[fs::relative(entry.path(), root).string()] = what;
  }
  return snapshot;
}

// A folder of files, folders, pipes, links and hard links, with names as they come, bytes that are no UTF-8 among them.
class RandomTree {
 public:
  RandomTree(const fs::path& root, unsigned seed) : random_(seed) {
    folders_ = {root};
    for (const char* name : {"model", "run", "d\xe9"}) {
      folders_.push_back(folders_[below(folders_.size())] / name);
      fs::create_directory(folders_.back());
      if (folders_.size() == 2) model_ = folders_.back();
    }
    write(model_ / "config.json", "{}");
    write(model_ / "model.safetensors", "weights");
    places_ = {model_ / "config.json", model_ / "model.safetensors"};
    for (int i = 0; i < 14; ++i) add();
    input_ = places_[below(places_.size())];
  }

  ReadPaths read() const { return {.files = {input_}, .checkpoints = {model_}}; }
  // A name that is there, one with a usual ending of temporary files, or a new one.
  fs::path output() {
    if (below(3) == 0) return new_place();
    fs::path place = places_[below(places_.size())];
    if (below(4) == 0) place += ".part";
    if (below(4) == 0) place = place.parent_path() / ".." / place.parent_path().filename() / place.filename();
    return place;
  }

 private:
  std::size_t below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_); }
  fs::path new_place() {
    const std::vector<std::string> names = {"a",      "lock",  "results.h5", "run.json",
                                            "s.json", "x\xff", "a.part",     ".winnow-0123456789abcdef.part"};
    return folders_[below(folders_.size())] / names[below(names.size())];
  }
  void add() {
    const fs::path place = new_place();
    if (fs::exists(fs::symlink_status(place))) return;
    const fs::path other = places_[below(places_.size())];
    std::error_code error;
    switch (below(7)) {
      case 0:
      case 1:
        fs::create_symlink(below(2) == 0 ? other : fs::path("nowhere"), place, error);
        break;
      case 2:
        if (fs::is_regular_file(fs::symlink_status(other))) fs::create_hard_link(other, place, error);
        break;
      case 3:
        fs::create_directory_symlink(folders_[below(folders_.size())], place, error);
        break;
      case 4:
        ::mkfifo(place.c_str(), 0600);
        break;
      case 5:
        write(place, kOwn);
        break;
      default:
        write(place, "theirs " + std::to_string(below(1000)));
    }
    if (fs::exists(fs::symlink_status(place))) places_.push_back(place);
  }

  std::mt19937 random_;
  std::vector<fs::path> folders_;
  std::vector<fs::path> places_;
  fs::path model_;
  fs::path input_;
};

TEST(RandomTrees, NothingButOwnFilesChangesAndWhatIsNotRefusedIsWritten) {
  int n_written = 0;
  int n_refused = 0;
  for (unsigned seed = 0; seed < 800; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const ScratchDirectory scratch;
    RandomTree tree(scratch.path(), seed);
    const fs::path output = tree.output();
    const Snapshot before = snapshot_of(scratch.path());
    const std::string wanted = std::string(kOwn).insert(1, "\"n\": " + std::to_string(seed) + ", ");
    std::string place;
    try {
      check_outputs({selection::selection_output("--out", output)}, tree.read());
      EXPECT_EQ(snapshot_of(scratch.path()).files, before.files) << "the check itself changed something";
      write_file_atomically(output, wanted);
      place = fs::relative(output, scratch.path()).string();
      EXPECT_EQ(text_of(output), wanted);
      EXPECT_FALSE(fs::is_symlink(output));
      const auto old = before.files.find(place);
      if (old != before.files.end()) {
        EXPECT_NE(old->second.find("winnow-selection"), std::string::npos) << old->second;
      }
      ++n_written;
    } catch (const Error&) {
      ++n_refused;
    }
    Snapshot after = snapshot_of(scratch.path());
    Snapshot rest = before;
    after.files.erase(place);
    rest.files.erase(place);
    EXPECT_EQ(after.files, rest.files) << output;
    if (HasFailure()) break;
  }
  EXPECT_GT(n_written, 50);
  EXPECT_GT(n_refused, 100);
}

}  // namespace
}  // namespace winnow
