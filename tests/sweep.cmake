# A sweep spread over CTest tests: mlstm_add_sweep(NAME SHARDS n OPTIONS options of "mlstm verify"...) adds NAME_shard_1 ...
# NAME_shard_n, which CTest may run side by side, and NAME, which merges their reports into sweeps/NAME/report of the
# build folder and has the exit status of all. `ctest -R NAME` runs them all: NAME requires its shards as a fixture.
function(mlstm_add_sweep name)
  cmake_parse_arguments(ARG "" "SHARDS" "OPTIONS" ${ARGN})
  set(folder ${PROJECT_BINARY_DIR}/sweeps/${name})
  set(parts)
  foreach(shard RANGE 1 ${ARG_SHARDS})
    add_test(NAME ${name}_shard_${shard}
      COMMAND mlstm verify ${ARG_OPTIONS} --threads 1 --shard ${shard}/${ARG_SHARDS} --report ${folder}/shard${shard})
    set_tests_properties(${name}_shard_${shard} PROPERTIES LABELS end_to_end FIXTURES_SETUP ${name} TIMEOUT 1800)
    list(APPEND parts ${folder}/shard${shard})
  endforeach()
  add_test(NAME ${name} COMMAND mlstm report merge ${folder}/report ${parts})
  set_tests_properties(${name} PROPERTIES LABELS end_to_end FIXTURES_REQUIRED ${name} FIXTURES_SETUP ${name}_report)
endfunction()
