# The group of ranks, over c10d. One file knows gloo, whose headers libtorch does not ship; NCCL's backend is built only where
# it is asked for: libtorch's header holds a struct of NCCL by value, so nccl.h must be of the version inside libtorch.
option(LAMINA_NCCL "Sum gradients on GPUs with NCCL (needs nccl.h and CUDA's headers of the versions inside libtorch)" OFF)
set(nccl group_nccl_absent.cpp)
if(LAMINA_NCCL)
  if(NOT lamina_has_cuda)
    message(FATAL_ERROR "LAMINA_NCCL: the libtorch in ${LAMINA_TORCH} has no CUDA; leave the option off")
  endif()
  find_path(LAMINA_NCCL_INCLUDE nccl.h PATHS ${LAMINA_TORCH}/../nvidia/nccl/include NO_DEFAULT_PATH)
  find_path(LAMINA_CUDA_INCLUDE cuda_runtime.h
            PATHS ${LAMINA_TORCH}/../nvidia/cu13/include ${LAMINA_TORCH}/../nvidia/cuda_runtime/include /usr/local/cuda/include)
  if(NOT LAMINA_NCCL_INCLUDE OR NOT LAMINA_CUDA_INCLUDE)
    message(FATAL_ERROR "LAMINA_NCCL: nccl.h or cuda_runtime.h was not found; set LAMINA_NCCL_INCLUDE and LAMINA_CUDA_INCLUDE, or leave the option off")
  endif()
  set(nccl group_nccl.cpp)
  set_source_files_properties(group_nccl.cpp PROPERTIES COMPILE_DEFINITIONS USE_C10D_NCCL
    INCLUDE_DIRECTORIES "${LAMINA_NCCL_INCLUDE};${LAMINA_CUDA_INCLUDE}")
endif()
lamina_room(heal/group TORCH ROOMS base tensor SOURCES group.cpp group_buckets.cpp group_c10d.cpp group_gloo.cpp ${nccl})
set_source_files_properties(group_gloo.cpp PROPERTIES
  COMPILE_DEFINITIONS USE_C10D_GLOO INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR}/third_party/gloo_decl)
