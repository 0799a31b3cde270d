// SPDX-License-Identifier: MIT
// A node as an object, in a main loop of its own: hosts a room, or joins the one whose code is given, says who it is
// and ends when it has heard the other.
//   c++ -std=c++17 embed.cpp $(pkg-config --cflags --libs bodkin) -o embed
//   ./embed URL ann          prints a code
//   ./embed URL bob CODE
#include <bodkin.h>
#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

using namespace std::chrono_literals;

class Node {
public:
  explicit Node(const char *server) {
    bdk_config config;
    bdk_config_init(&config, sizeof config);
    config.server = server;
    config.log = [](void *, int, const char *text) { std::cerr << text << '\n'; };
    bdk_node *made = nullptr;
    if (int error = bdk_open(&made, &config)) throw std::runtime_error(bdk_strerror(error));
    node.reset(made);
  }
  operator bdk_node *() const { return node.get(); }
  template <class Handler> void frame(Handler handle) {
    bdk_update(*this, BDK_CLOCK, 64);
    while (const bdk_event *e = bdk_next(*this)) handle(*e);
  }

private:
  struct Close {
    void operator()(bdk_node *n) const { bdk_close(n); }
  };
  std::unique_ptr<bdk_node, Close> node;
};

int main(int argc, char **argv) try {
  Node node(argc > 1 ? argv[1] : nullptr);
  std::string name = argc > 2 ? argv[2] : "ann";
  int frames_left = 600; // ten seconds, at 60 a second
  argc > 3 ? bdk_join(node, argv[3]) : bdk_host(node, nullptr);
  for (bool heard = false; frames_left > 0; frames_left--) {
    node.frame([&](const bdk_event &e) {
      if (e.kind == BDK_HOSTING) std::cout << "code: " << e.code << std::endl;
      if (e.kind == BDK_CONNECTED) bdk_send(node, e.match, e.peer, 0, name.data(), name.size());
      if (e.kind == BDK_ERROR) std::cerr << e.message << '\n';
      if (e.kind != BDK_MESSAGE) return;
      std::cout << "heard " << std::string_view(reinterpret_cast<const char *>(e.data), e.len) << std::endl;
      if (!heard) frames_left = 30; // the other side is to hear us, too
      heard = true;
    });
    if (heard && frames_left == 1) return 0;
    std::this_thread::sleep_for(16ms);
  }
  return 1;
} catch (const std::exception &e) {
  std::cerr << e.what() << '\n';
  return 1;
}
