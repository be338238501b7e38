# lamina_embed(TARGET NAME FILE...)
# Compiles files into TARGET, byte for byte, at build time. The sources of TARGET then include
# "lamina/<room>/<NAME>.h", which is generated and declares `std::span<const EmbeddedFile> <NAME>()`;
# each file goes by the name that stands in the list here, relative to the room's folder.
function(lamina_embed target name)
  file(RELATIVE_PATH room ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  set(folder ${PROJECT_BINARY_DIR}/embedded)
  set(stem ${folder}/${room}/${name})
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE paths)
  string(REPLACE ";" "|" files "${ARGN}")
  add_custom_command(
    OUTPUT ${stem}.cpp ${stem}.h
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DSTEM=${stem} -DHEADER=${room}/${name}.h
            -DSOURCE=${CMAKE_CURRENT_SOURCE_DIR} "-DFILES=${files}" -P ${PROJECT_SOURCE_DIR}/cmake/embed_files.cmake
    DEPENDS ${paths} ${PROJECT_SOURCE_DIR}/cmake/embed_files.cmake
    COMMENT "Embedding ${room}/${name}"
    VERBATIM)
  target_sources(${target} PRIVATE ${stem}.cpp ${stem}.h)
  target_include_directories(${target} PRIVATE ${folder})
endfunction()
