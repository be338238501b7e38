# Finds libtorch in a Python wheel or an unpacked archive and gives lamina::torch.
# TorchConfig.cmake is left alone: it needs a CUDA toolkit beside a CUDA wheel and drags flags into every target.
# Search order: -DLAMINA_TORCH=DIR, the environment's LAMINA_TORCH, the .venv of this checkout, python3's torch.
set(LAMINA_TORCH "$ENV{LAMINA_TORCH}" CACHE PATH "Folder that holds libtorch's include/ and lib/")
if(NOT LAMINA_TORCH)
  foreach(python ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
    execute_process(
      COMMAND ${python} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(found)
      set(LAMINA_TORCH ${found} CACHE PATH "Folder that holds libtorch's include/ and lib/" FORCE)
      break()
    endif()
  endforeach()
endif()
if(NOT EXISTS ${LAMINA_TORCH}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "libtorch was not found. Run tools/setup (it makes .venv with torch==2.13.0) or pass -DLAMINA_TORCH=DIR.")
endif()

add_library(lamina_torch INTERFACE)
add_library(lamina::torch ALIAS lamina_torch)
target_include_directories(lamina_torch SYSTEM INTERFACE
  $<BUILD_INTERFACE:${LAMINA_TORCH}/include> $<BUILD_INTERFACE:${LAMINA_TORCH}/include/torch/csrc/api/include>)
set(lamina_torch_libs ${LAMINA_TORCH}/lib/libc10.so ${LAMINA_TORCH}/lib/libtorch_cpu.so ${LAMINA_TORCH}/lib/libtorch.so)
set(lamina_has_cuda OFF)
if(EXISTS ${LAMINA_TORCH}/lib/libtorch_cuda.so)
  set(lamina_has_cuda ON)
  list(APPEND lamina_torch_libs ${LAMINA_TORCH}/lib/libc10_cuda.so ${LAMINA_TORCH}/lib/libtorch_cuda.so)
endif()
target_link_libraries(lamina_torch INTERFACE
  $<BUILD_INTERFACE:-Wl,--push-state,--no-as-needed ${lamina_torch_libs} -Wl,--pop-state>)
target_link_options(lamina_torch INTERFACE $<BUILD_INTERFACE:-Wl,-rpath,${LAMINA_TORCH}/lib>)

file(STRINGS ${LAMINA_TORCH}/include/torch/headeronly/version.h lamina_torch_version_lines
     REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX MATCHALL " [0-9]+" lamina_torch_version_numbers "${lamina_torch_version_lines}")
list(TRANSFORM lamina_torch_version_numbers STRIP)
list(JOIN lamina_torch_version_numbers "." LAMINA_TORCH_VERSION)
message(STATUS "lamina: libtorch ${LAMINA_TORCH_VERSION} in ${LAMINA_TORCH}, CUDA ${lamina_has_cuda}, "
               "compiler ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
