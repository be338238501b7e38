// Included by libtorch; nothing of it is used.
#pragma once
