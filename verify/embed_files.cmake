# SPDX-License-Identifier: Apache-2.0
# Writes OUTPUT, a C++ file with the bytes of FILES (separated by commas), all of FOLDER, in this order:
#
#   cmake -DFOLDER=<folder> -DFILES=<name,name,...> -DOUTPUT=<file> -P embed_files.cmake
cmake_minimum_required(VERSION 3.25)
string(REPLACE "," ";" names "${FILES}")
set(arrays)
set(table)
set(number 0)
foreach(name IN LISTS names)
  file(READ ${FOLDER}/${name} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
  string(APPEND arrays "constexpr char file_${number}[] = {${bytes}};\n")
  string(APPEND table "    {\"${name}\", {file_${number}, sizeof file_${number}}},\n")
  math(EXPR number "${number} + 1")
endforeach()

file(WRITE ${OUTPUT} "// Written by embed_files.cmake.
#include \"report/report_files.hpp\"

namespace mlstm::verify {
namespace {

${arrays}
}  // namespace

const std::vector<ReportFile>& report_files() {
  static const std::vector<ReportFile> files{
${table}  };
  return files;
}

}  // namespace mlstm::verify
")
