# Faster builds where the tools are found: ccache for recompiles, mold or lld to link.
find_program(LAMINA_CCACHE ccache)
if(LAMINA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${LAMINA_CCACHE})
endif()
find_program(LAMINA_MOLD mold)
find_program(LAMINA_LLD NAMES ld.lld-19 ld.lld)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  if(LAMINA_LLD)
    add_link_options(--ld-path=${LAMINA_LLD})
  endif()
elseif(LAMINA_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

option(LAMINA_WARNINGS_ARE_ERRORS "Stop at warnings; turn off for compilers that the project does not test with"
       ${LAMINA_DEVELOPER_MODE})
add_compile_options(-Wall -Wextra)
if(LAMINA_WARNINGS_ARE_ERRORS)
  add_compile_options(-Werror)
endif()
# g++ 12 sees overlapping copies in its own std::string (GCC bug 105651), and members of a std::variant that is another
# alternative as used before they are set (GCC bug 105562).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-Wno-restrict -Wno-maybe-uninitialized)
endif()
if(LAMINA_SANITIZE OR LAMINA_FUZZ)
  # Assertions stay on here in every build type: they are part of what is tested.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -UNDEBUG)
  add_link_options(-fsanitize=address,undefined)
endif()
if(LAMINA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
