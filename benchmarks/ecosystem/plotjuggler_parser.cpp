// Copyright 2026 hralign_ros maintainers
// SPDX-License-Identifier: Apache-2.0

// Reads an MCAP file with PlotJuggler's own plug-in for ROS 2, and prints all series as JSON, by
// topic. PJ: PlotJuggler's sources; DATA_TAMER: those of data_tamer, of which it needs one header.
// Debian: qtbase5-dev libfmt-dev liblz4-dev libzstd-dev.
//
//   ROS=$PJ/plotjuggler_plugins/ParserROS MCAP=$PJ/plotjuggler_plugins/DataLoadMCAP
//   g++ -std=c++17 -fPIC -DFMT_HEADER_ONLY -o plotjuggler_parser \
//     -DPJ_VERSION="$(sed -n 's:.*<version>\(.*\)</version>.*:"\1":p' $PJ/package.xml)" \
//     -I$PJ/plotjuggler_base/include -I$ROS -I$ROS/rosx_introspection/include \
//     -I$MCAP/3rdparty -I$DATA_TAMER/data_tamer_cpp/include \
//     benchmarks/ecosystem/plotjuggler_parser.cpp $ROS/ros_parser.cpp $ROS/special_messages.cpp \
//     $ROS/rosx_introspection/src/*.cpp $PJ/plotjuggler_base/src/plotdata.cpp $MCAP/mcap.cpp \
//     $(pkg-config --cflags --libs Qt5Widgets Qt5Xml) -llz4 -lzstd

#include <QJsonDocument>
#include <QJsonObject>
#include <cstdio>
#include <string>

#include <mcap/reader.hpp>

#include "ros_parser.h"

namespace {

std::string without(const std::string& series, const std::string& topic) {
  return series.compare(0, topic.size() + 1, topic + "/") == 0 ? series.substr(topic.size() + 1)
                                                               : series;
}

// As the plug-in does it when a file is opened with the settings of its dialog.
QJsonObject read(const mcap::MessageView& view) {
  const std::string& topic = view.channel->topic;
  const std::string definition(
    reinterpret_cast<const char*>(view.schema->data.data()), view.schema->data.size());
  const std::string type =
    QString::fromStdString(view.schema->name).replace("/msg/", "/").toStdString();
  QJsonObject found;
  try {
    PJ::PlotDataMapRef data;
    ParserROS parser(topic, type, definition, new RosMsgParser::ROS2_Deserializer(), data);
    parser.enableTruncationCheck(true);
    parser.setLargeArraysPolicy(false, 500);
    parser.enableEmbeddedTimestamp(false);
    double stamp = 0.0;
    parser.parseMessage(PJ::MessageRef(view.message.data, view.message.dataSize), stamp);
    QJsonObject values;
    for (const auto& [name, series] : data.numeric) {
      values[QString::fromStdString(without(name, topic))] = series.back().y;
    }
    for (const auto& [name, series] : data.strings) {
      const auto text = series.getString(series.back().y);
      values[QString::fromStdString(without(name, topic))] =
        QString::fromUtf8(text.data(), static_cast<int>(text.size()));
    }
    QJsonObject constants;
    const RosMsgParser::Parser types(topic, type, definition);
    for (const auto& field : types.getSchema()->root_msg->fields()) {
      if (field.isConstant()) {
        constants[QString::fromStdString(field.name())] = std::stoi(field.value());
      }
    }
    found["values"] = values;
    found["constants"] = constants;
  } catch (const std::exception& error) {
    found["error"] = error.what();
  }
  return found;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2 || std::string(arguments[1]) == "--version") {
    std::puts(PJ_VERSION);
    return count == 2 ? 0 : 2;
  }
  mcap::McapReader reader;
  const auto status = reader.open(arguments[1]);
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", arguments[1], status.message.c_str());
    return 1;
  }
  QJsonObject found;
  for (const auto& view : reader.readMessages()) {
    found[QString::fromStdString(view.channel->topic)] = read(view);
  }
  std::puts(QJsonDocument(found).toJson(QJsonDocument::Compact).constData());
  return 0;
}
