# SPDX-License-Identifier: Apache-2.0
# Writes OUTPUT, a C++ file with the SHA-256 of every variant's source:
#
#   cmake -DKERNELS=<folder kernels/> -DOUTPUT=<file> -P source_digests.cmake
#
# A variant's source is all files in its folder, every file below kernels/ that these include with quotes, directly or
# not, and what implements each of those: a .cpp or .cu beside it that has its name, or its name, _ and more. Its digest
# is that of the text that sha256sum prints for these files in the order of their paths from kernels/.
cmake_minimum_required(VERSION 3.25)
get_filename_component(KERNELS ${KERNELS} ABSOLUTE)

# Paths from KERNELS of what `file` needs: what it includes and what implements it.
function(needs_of file result)
  set(found)
  get_filename_component(folder ${file} DIRECTORY)
  file(STRINGS ${KERNELS}/${file} lines REGEX "^[ \t]*#[ \t]*include[ \t]*\"[^\"]+\"")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^[^\"]*\"([^\"]+)\".*$" "\\1" header "${line}")
    foreach(candidate ${folder}/${header} ${header})
      if(EXISTS ${KERNELS}/${candidate})
        list(APPEND found ${candidate})
        break()
      endif()
    endforeach()
  endforeach()
  string(REGEX REPLACE "[.][^./]*$" "" stem ${file})
  file(GLOB implementations RELATIVE ${KERNELS} ${KERNELS}/${stem}.cpp ${KERNELS}/${stem}.cu ${KERNELS}/${stem}_*.cpp
    ${KERNELS}/${stem}_*.cu)
  set(${result} ${found} ${implementations} PARENT_SCOPE)
endfunction()

set(table)
file(GLOB folders LIST_DIRECTORIES true RELATIVE ${KERNELS} ${KERNELS}/recurrent/* ${KERNELS}/parallel/* ${KERNELS}/chunkwise/*)
list(SORT folders)
foreach(folder IN LISTS folders)
  if(NOT IS_DIRECTORY ${KERNELS}/${folder})
    continue()
  endif()
  file(GLOB_RECURSE files LIST_DIRECTORIES false RELATIVE ${KERNELS} ${KERNELS}/${folder}/*)
  if(NOT files)
    continue()
  endif()
  set(open ${files})
  while(open)
    list(POP_FRONT open file)
    if(NOT DEFINED needs_${file})
      needs_of(${file} needs_${file})
    endif()
    foreach(needed IN LISTS needs_${file})
      if(NOT needed IN_LIST files)
        list(APPEND files ${needed})
        list(APPEND open ${needed})
      endif()
    endforeach()
  endwhile()
  list(SORT files)
  set(sums)
  foreach(file IN LISTS files)
    file(SHA256 ${KERNELS}/${file} sum)
    string(APPEND sums "${sum}  ${file}\n")
  endforeach()
  string(SHA256 digest "${sums}")
  string(REPLACE "/" "--" key ${folder})
  string(APPEND table "      {\"${key}\", \"${digest}\"},\n")
endforeach()

file(WRITE ${OUTPUT} "// Written by source_digests.cmake.
#include \"cases/source_digest.hpp\"

namespace mlstm::verify {

const std::map<std::string, std::string, std::less<>>& source_digests() {
  static const std::map<std::string, std::string, std::less<>> digests{
${table}  };
  return digests;
}

}  // namespace mlstm::verify
")
