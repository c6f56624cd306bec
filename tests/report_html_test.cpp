// SPDX-License-Identifier: Apache-2.0
// ctest-labels: unit
#include "report/report_html.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>

#include "base/json.hpp"
#include "cases/case_file.hpp"
#include "small_case.hpp"
#include "sweep/sweep.hpp"
#include "text.hpp"

namespace {
using namespace mlstm::verify;
using mlstm::DType, mlstm::test::contains;
namespace fs = std::filesystem;

constexpr double kInf = std::numeric_limits<double>::infinity();
const std::string kHostile = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>'\"&--%\x01";

/// An item with everything, of problem number `unit`.
Record record_of(const std::string& variant, const std::string& tensor, double ratio, std::int64_t unit) {
  const ProblemSpec spec =
      parse_spec("regime=forget3,B=1,NH=2,S=8,DHQK=2,DHV=2,L=4,seed=" + std::to_string(unit) + ",eps=1e-3");
  Record record;
  record.unit = unit;
  record.dtype = "float64";
  Item& item = record.item;
  item.regime = "forget3";
  item.problem = spec;
  item.run = "exact";
  item.variant = variant;
  item.case_name = case_name(spec);
  item.tensor = tensor;
  if (tensor.front() == 'd') item.convention = "exact";
  item.status = ratio <= 1 ? Status::PASS : Status::FAIL;
  item.error_ratio = ratio;
  item.max_abs_error = 1e-7;
  item.worst_index = {0, 1, 5, 1};
  item.repro = "mlstm verify --variant " + variant + " --case \"" + to_line(spec) + "\"";
  item.detail = std::make_shared<Detail>();
  item.detail->regime = "forget3";
  item.detail->problem = spec.problem;
  item.detail->got = 0.1 + static_cast<double>(unit);
  item.detail->expected = 1.0 / 3;
  item.detail->bound = 1e-17;
  item.detail->shape = {1, 2, 8, 2};
  Array reference = Array::from_shape({1, 2, 8, 2}), bound = reference;
  reference.fill(1);
  bound.fill(0.25);
  Array values = reference;
  values(0, 1, 5, 1) += 0.25 * ratio;
  item.detail->picture = picture_of(tensor, values, reference, bound, DType::float64);
  return record;
}

std::vector<Record> records_of(std::int64_t units) {
  std::vector<Record> records;
  for (std::int64_t unit = 0; unit < units; ++unit)
    for (const char* tensor : {"h", "dq"})
      records.push_back(record_of("chunkwise--native_eigen_ownbw", tensor, tensor[0] == 'h' ? 0.5 : 2.0, unit));
  return records;
}

std::vector<Item> items_of(std::vector<Record> records) { return finish(std::move(records), GroupBy::variant).items; }

/// What scripts of the report read.
Json data_of(const std::string& html) {
  const std::string start = "id=\"data\">";
  const std::size_t begin = html.find(start) + start.size();
  return Json::parse(std::string_view(html).substr(begin, html.find("</script>", begin) - begin));
}

/// Empty if every element is closed in the right order, else what is wrong first. Knows the little HTML that reports
/// are made of: no attribute without quotes, no optional end tags, raw text in script and style.
std::string fault_in_nesting(const std::string& html) {
  static const std::vector<std::string> empty{"meta", "link", "br", "input", "!DOCTYPE"};
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at)) {
    const bool closes = html[at + 1] == '/';
    const std::size_t start = at + (closes ? 2 : 1);
    const std::string name = html.substr(start, html.find_first_of(" >", start) - start);
    std::size_t end = start;
    for (bool quoted = false; end < html.size() && (quoted || html[end] != '>'); ++end) quoted ^= html[end] == '"';
    if (end == html.size()) return "unfinished tag " + name;
    at = end + 1;
    if (closes) {
      if (open.empty() || open.back() != name) return "</" + name + "> inside " + (open.empty() ? "" : open.back());
      open.pop_back();
    } else if (std::find(empty.begin(), empty.end(), name) == empty.end()) {
      open.push_back(name);
      if (name == "script" || name == "style") at = html.find("</" + name + ">", at);
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

}  // namespace

BOOST_AUTO_TEST_CASE(levels_of_a_heat_map_keep_what_passes_and_what_does_not_apart) {
  const auto level = [](double ratio) {
    return std::string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        .find(ErrorPicture::level_of(ratio));
  };
  BOOST_TEST(level(0) == 0u);
  BOOST_TEST(level(1) == 44u);
  BOOST_TEST(level(std::nextafter(1.0, 2.0)) == 45u);
  BOOST_TEST(level(std::sqrt(2.0) * 0.999) == 45u);
  BOOST_TEST(level(std::numeric_limits<double>::denorm_min()) == 1u);
  BOOST_TEST(level(std::numeric_limits<double>::max()) == 62u);
  BOOST_TEST(level(kInf) == 63u);
  BOOST_TEST(level(std::nan("")) == 63u);
}

BOOST_AUTO_TEST_CASE(units_in_the_last_place_are_the_distances_of_neighbours) {
  for (const double x : {1.0, 1.5, 3.1, 1e-20, 1e30}) {
    BOOST_TEST(unit_in_the_last_place(DType::float64, x) == std::nextafter(x, kInf) - x);
    const float f = static_cast<float>(x), infinity = std::numeric_limits<float>::infinity();
    BOOST_TEST(unit_in_the_last_place(DType::float32, f) == static_cast<double>(std::nextafter(f, infinity)) - f);
  }
  BOOST_TEST(unit_in_the_last_place(DType::float16, -1.0) == 0x1p-10);
  BOOST_TEST(unit_in_the_last_place(DType::bfloat16, 200.0) == 1.0);
  BOOST_TEST(unit_in_the_last_place(DType::float16, 0) == 0x1p-24);
  BOOST_TEST(unit_in_the_last_place(DType::float32, 1e-42) == 0x1p-149);
}

BOOST_AUTO_TEST_CASE(a_picture_shows_where_the_errors_are) {
  // 1000 steps in 512 bins and 64 rows, 100 columns in 64.
  Array reference = Array::from_shape({1, 2, 1000, 100}), bound = reference;
  reference.fill(1);
  bound.fill(0x1p-20);
  Array values = reference;
  values(0, 1, 700, 99) += 0x1p-18;      // 4 times its bound, 2^5 ulps of float32
  values(0, 0, 3, 0) -= 3 * 0x1p-25;     // 0.75 ulps
  values(0, 0, 999, 50) = std::nan("");  // never right
  const ErrorPicture picture = picture_of("h", values, reference, bound, DType::float32);
  BOOST_REQUIRE(picture.profile.size() == 512u);
  BOOST_TEST(picture.profile[700 * 512 / 1000] == 4.0);
  BOOST_TEST(picture.profile[511] == kInf);
  BOOST_TEST(std::count_if(picture.profile.begin(), picture.profile.end(), [](double r) { return r > 0; }) == 3);
  BOOST_REQUIRE(picture.heat.size() == 64u * 64u);
  BOOST_TEST(picture.heat[700 * 64 / 1000 * 64 + 99 * 64 / 100] == ErrorPicture::level_of(4));
  BOOST_TEST(picture.heat[63 * 64 + 50 * 64 / 100] == '/');
  BOOST_TEST(std::count(picture.heat.begin(), picture.heat.end(), 'A') == 64 * 64 - 3);
  BOOST_TEST(picture.without_error == 200000 - 3);
  BOOST_TEST(picture.not_finite == 1);
  BOOST_TEST(picture.ulps[5 - ErrorPicture::kLowestUlpExponent] == 1);
  BOOST_TEST(picture.ulps[-1 - ErrorPicture::kLowestUlpExponent] == 1);
  BOOST_TEST(std::accumulate(picture.ulps.begin(), picture.ulps.end(), 0) == 2);
}

BOOST_AUTO_TEST_CASE(every_tensor_has_a_picture_of_its_axes) {
  const mlstm::Problem problem = parse_spec("B=2,NH=3,S=5,DHQK=4,DHV=7,dtype=float32").problem;
  for (const std::string_view name : kTensors) {
    const bool gradient = name.front() == 'd';
    const auto extents = mlstm::shape_of(gradient ? name.substr(1) : name, problem.shape);
    Array zero = Array::from_shape({extents.begin(), extents.end()});
    zero.fill(0);
    Array values = zero, bound = zero;
    bound.fill(1);
    values.flat(values.size() - 1) = 2;
    const ErrorPicture picture = picture_of(name, values, zero, bound, DType::float32);
    BOOST_TEST_CONTEXT(name) {
      BOOST_TEST(picture.heat.back() == ErrorPicture::level_of(2));
      BOOST_TEST(std::count(picture.heat.begin(), picture.heat.end(), 'A') ==
                 static_cast<std::ptrdiff_t>(picture.heat.size()) - 1);
      const bool over_time = axis_names(name).size() > 2 && axis_names(name)[2] == "time step";
      BOOST_TEST(picture.profile.size() == (over_time ? 5u : 0u));
      BOOST_TEST(axis_names(name).size() == extents.size());
    }
  }
  BOOST_CHECK_THROW(
      picture_of("h", Array::from_shape({2}), Array::from_shape({2}), Array::from_shape({2}), DType::float32),
      std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(details_are_read_back_as_they_were_written) {
  std::vector<Item> items = items_of(records_of(3));
  items[0].detail->got = -kInf;
  items[0].detail->expected = std::nextafter(1.0, 2.0);
  items[1].detail.reset();
  items[1].explanation = "where: everywhere\nlooks like: NaN";
  const std::string report = to_json(items), text = to_details(items, report);
  std::vector<Item> read = parse_report(report, "r");
  attach_details(read, text, report, "d");
  BOOST_TEST(to_details(read, report) == text);
  BOOST_TEST(!read[1].detail);
  BOOST_TEST(read[1].explanation == items[1].explanation);
  for (std::size_t n = 0; n < items.size(); ++n)
    if (n != 1) BOOST_CHECK(*read[n].detail == *items[n].detail);
}

BOOST_AUTO_TEST_CASE(damaged_details_and_those_of_another_report_are_refused) {
  const std::vector<Item> items = items_of(records_of(1));
  const std::string report = to_json(items), text = to_details(items, report);
  const auto message_of = [&](std::string damaged, const std::string& of) -> std::string {
    std::vector<Item> read = parse_report(report, "r");
    try {
      attach_details(read, damaged, of, "d.json");
    } catch (const FileError& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    const std::size_t at = changed.find(from);
    BOOST_REQUIRE(at != std::string::npos);
    return message_of(changed.replace(at, from.size(), to), report);
  };
  BOOST_TEST(message_of(text, report) == "accepted");
  BOOST_TEST(message_of(text, report + " ").starts_with("d.json: belongs to another report.json"));
  BOOST_TEST(message_of("[]", report).starts_with("d.json: expected an object with \"details\""));
  BOOST_TEST(with("\"details\": 1", "\"details\": 2") == "d.json: \"details\" is 2; expected 1");
  BOOST_TEST(with("\"items\"", "\"others\"") == "d.json: has no \"items\"");
  BOOST_TEST(with("[1,2,8,2]", "[1,-2,8,2]") == "d.json: detail 0: \"shape\" is -2; expected integers >= 0");
  BOOST_TEST(with("\"picture\":{", "\"picture\":7,\"p\":{") ==
             "d.json: detail 0: \"picture\" is 7; expected an object");
  BOOST_TEST(message_of("{", report).starts_with("d.json: not JSON"));
  BOOST_TEST(with("\"item\":1", "\"item\":7") == "d.json: detail 1: \"item\" is 7; expected less than 2");
  BOOST_TEST(with("\"rows\":8", "\"rows\":9") == "d.json: detail 0: the sizes of its picture do not fit");
  BOOST_TEST(with("\"got\":\"0.1\"", "\"got\":\"0.1x\"") == "d.json: detail 0: \"got\" is \"0.1x\"; expected a number");
  BOOST_TEST(with("\"heat\":\"A", "\"heat\":\"<").starts_with("d.json: detail 0: \"heat\" holds"));
  BOOST_TEST(with("S=8", "S=0").starts_with("d.json: detail 0: "));
}

BOOST_AUTO_TEST_CASE(the_worst_item_keeps_its_picture_and_of_the_failing_four_do) {
  std::vector<Record> records;
  for (std::int64_t unit = 0; unit < 9; ++unit) {
    records.push_back(record_of("v", "h", 0.1 * static_cast<double>(unit % 5), unit));   // 4 has the largest
    records.push_back(record_of("v", "dq", 1.5 + static_cast<double>(unit % 3), unit));  // 2, 5, 8, then 1
    records.push_back(record_of("w", "h", unit == 3 ? 2 : 0.5, unit));
  }
  const auto kept = [](const std::vector<Item>& items) {
    std::vector<std::string> names;
    for (const Item& item : items)
      if (item.detail->picture)
        names.push_back(item.variant + " " + item.tensor + " " + item.case_name.substr(item.case_name.rfind("seed")));
    return names;
  };
  const std::vector<std::string> expected{"v dq seed1", "v dq seed2", "v h seed4",
                                          "v dq seed5", "v dq seed8", "w h seed3"};
  BOOST_TEST(kept(items_of(records)) == expected, boost::test_tools::per_element());
  std::reverse(records.begin(), records.end());
  std::vector<std::string> reversed = kept(items_of(records));
  std::sort(reversed.begin(), reversed.end());
  std::vector<std::string> sorted = expected;
  std::sort(sorted.begin(), sorted.end());
  BOOST_TEST(reversed == sorted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(shards_resumed_and_merged_give_the_report_of_the_whole_sweep) {
  const mlstm::test::TemporaryDirectory directory;
  std::vector<const mlstm::Kernel*> kernels{mlstm::find_kernel("chunkwise--native_eigen_ownbw"),
                                            mlstm::find_kernel("recurrent--sequence_eigen_ownbw")};
  BOOST_REQUIRE(kernels[0] != nullptr);
  BOOST_REQUIRE(kernels[1] != nullptr);
  std::vector<ProblemSpec> specs;
  for (const char* line : {"S=7,L=3,DHQK=2,DHV=3,dtype=float32", "regime=forget3,S=9,L=4,DHQK=3,DHV=2,dtype=float32",
                           "regime=forget6,S=8,L=4,DHQK=3,DHV=2,dtype=bfloat16", "S=6,L=3,DHQK=2,DHV=2,dtype=float32"})
    specs.push_back(parse_spec(line));
  const Plan plan = make_plan(kernels, specs, true);
  const auto sweep = [&](const std::vector<Unit>& units, int threads, Journal* journal) {
    SweepOptions options;
    options.threads = threads;
    options.journal = journal;
    return run_sweep(units, options);
  };
  const std::vector<Item> whole = items_of(sweep(plan.units, 2, nullptr));
  const std::string html = to_html(whole), details = to_details(whole, "");
  BOOST_TEST(contains(details, "\"heat\""));
  BOOST_TEST(to_details(items_of(sweep(plan.units, 1, nullptr)), "") == details);

  std::vector<fs::path> parts;
  for (std::int64_t number = 1; number <= 2; ++number) {
    const std::vector<Unit> units = shard_of(plan, number, 2);
    parts.push_back(directory.path() / std::to_string(number));
    const std::string shard = std::to_string(number) + "/2";
    {
      Journal journal(parts.back(), plan, units, shard, false);
      sweep({units.front()}, 1, &journal);  // stopped after the first
    }
    Journal journal(parts.back(), plan, units, shard, true);
    sweep(units, 1, &journal);
  }
  const std::vector<Item> merged = merge_reports({parts[1], parts[0]}).items;
  BOOST_TEST(to_details(merged, "") == details);
  BOOST_TEST((to_html(merged) == html));
}

BOOST_AUTO_TEST_CASE(the_worst_element_is_the_one_that_the_index_names) {
  Case c = make_case(parse_spec("regime=forget3,B=2,NH=2,S=6,DHQK=3,DHV=2,L=3,dtype=float32"));
  const ReferenceData reference = evaluate_reference(c);
  KernelData kernel;
  kernel.variant = "chunkwise--x";
  kernel.outputs["h"] = reference.outputs.at("h");
  kernel.gradients["q"] = reference.exact.at("q");
  kernel.outputs["h"](1, 0, 4, 1) = 77;
  c.kernel = kernel;
  JudgeOptions options;
  options.wants_picture = [](const Item& item) { return item.tensor == "h"; };
  const std::vector<Item> items = judge(c, reference, options);
  BOOST_REQUIRE(items.size() == 2u);
  BOOST_REQUIRE(items[0].detail);
  BOOST_TEST(items[0].detail->got == 77);
  BOOST_TEST(items[0].detail->expected == reference.outputs.at("h")(1, 0, 4, 1));
  BOOST_TEST(*items[0].error_ratio == std::abs(77 - items[0].detail->expected) / items[0].detail->bound);
  BOOST_TEST(items[0].detail->regime == "forget3");
  BOOST_CHECK(items[0].detail->problem == c.problem);
  BOOST_REQUIRE(items[0].detail->picture);
  BOOST_TEST(items[0].detail->picture->profile[4] == *items[0].error_ratio);
  BOOST_TEST(!items[1].detail->picture);
}

BOOST_AUTO_TEST_CASE(an_html_report_is_well_formed_whole_and_the_same_every_time) {
  std::vector<Item> items = items_of(records_of(5));
  Item skipped;
  skipped.variant = "parallel--x_cuda";
  skipped.case_name = "all";
  skipped.status = Status::SKIPPED;
  skipped.note = "no CUDA device";
  items.push_back(skipped);
  const std::string html = to_html(items);
  BOOST_TEST(fault_in_nesting(html) == "");
  BOOST_TEST((to_html(items) == html));
  BOOST_TEST(contains(html, "5 of 10 tensors did not pass"));
  BOOST_TEST(contains(html, "1 variant could not run here"));
  BOOST_TEST(contains(html, "batch 0, head 1, time step 5 of 8 (chunk 1, step 1 of 4 in it)"));
  const Json data = data_of(html);
  for (const Item& item : items) {
    const Json& repros = data.at("repros");
    BOOST_TEST((std::find(repros.begin(), repros.end(), Json(item.repro)) != repros.end()));
  }
  BOOST_TEST(data.at("items").size() == items.size());
  // Nothing from elsewhere: no address but the name of SVG, which is never fetched.
  std::string rest = html;
  for (std::size_t at; (at = rest.find("http://www.w3.org/2000/svg")) != std::string::npos;) rest.erase(at, 26);
  for (const char* foreign : {"http:", "https:", "src=", "@import", "url("}) BOOST_TEST(!contains(rest, foreign));
  BOOST_TEST(fault_in_nesting(to_html({})) == "");
  BOOST_TEST(contains(to_html({}), "Nothing was judged"));
}

BOOST_AUTO_TEST_CASE(names_from_files_stay_text) {
  std::vector<Record> records = records_of(2);
  for (Record& record : records) {
    record.item.variant = kHostile;
    record.item.case_name = kHostile + record.item.case_name;
    record.item.note = kHostile;
    record.item.repro = kHostile;
    record.item.detail->regime = kHostile;
  }
  Json mutant{{"name", kHostile}, {"family", kHostile}, {"description", kHostile}, {"detected", true}};
  mutant["kills"] = Json::object({{kHostile, Json::object({{kHostile, Json::array({1, 2})}})}});
  mutant["by"] = Json{{"problem", kHostile}, {"check", kHostile}, {"repro", kHostile}};
  const Json mutations{{"mutants", Json::array({mutant})},
                       {"rules", Json::array({Json{{"name", kHostile}, {"description", kHostile}}})},
                       {"false_alarms", Json::object({{"not_passed", kHostile}})}};
  const std::string html = to_html(items_of(records), {{mutations.dump(), "m"}});
  BOOST_TEST(fault_in_nesting(html) == "");
  BOOST_TEST(!contains(html, "<img"));
  BOOST_TEST(!contains(html, "<script>"));
  std::size_t scripts = 0;
  for (std::size_t at = 0; (at = html.find("<script", at)) != std::string::npos; ++at) ++scripts;
  BOOST_TEST(scripts == 2u);  // the data and the script that the policy names
  BOOST_TEST((data_of(html).at("repros").at(0).get<std::string>() == kHostile));
}

BOOST_AUTO_TEST_CASE(a_report_without_details_is_rendered_too) {
  const std::vector<Item> items = parse_report(to_json(items_of(records_of(3))), "r");
  const std::string html = to_html(items);
  BOOST_TEST(fault_in_nesting(html) == "");
  const Json data = data_of(html);
  BOOST_TEST(data.at("pictures").empty());
  BOOST_TEST((data.at("cases").at(0).at("eps").get<std::string>() == "0.001"));  // from the item's problem
  BOOST_TEST((data.at("cases").at(0).at("regime").get<std::string>() == "forget3"));
}

BOOST_AUTO_TEST_CASE(a_report_directory_holds_the_page_that_report_renders) {
  const mlstm::test::TemporaryDirectory directory;
  std::vector<Item> items = items_of(records_of(3));
  items[0].error_ratio = kInf;  // null in report.json
  items[1].hides = {"zero", "doubled"};
  items[1].error_ratio = 1.0 / 3;
  write_report(items, GroupBy::variant, "", directory.path());
  const std::string html = read_text_file(directory.path() / "report.html");
  BOOST_TEST((to_html(read_report_with_details(directory.path())) == html));
  BOOST_TEST(contains(html, "not finite"));
  BOOST_TEST(contains(html, "<th scope=\"row\">doubled</th><td class=\"num\">1 of 1</td>"));
  BOOST_TEST(!mutation_file_in(directory.path()).has_value());
  std::ofstream(directory.path() / "mutate.json") << R"({"mutants": []})";
  BOOST_TEST(contains(to_html({}, {mutation_file_in(directory.path()).value()}), "0 of 0 planted bugs detected"));
}

BOOST_AUTO_TEST_CASE(what_was_expected_to_fail_has_its_own_mark_and_count) {
  std::vector<Item> items = items_of(records_of(2));  // h passes, dq fails, twice
  for (Item& item : items) item.as_expected = true;
  const std::string html = to_html(items);
  BOOST_TEST(fault_in_nesting(html) == "");
  BOOST_TEST(contains(html, "<div class=\"verdict PASS\">"));
  BOOST_TEST(contains(html, "All 4 tensors are as expected: 2 did not pass"));
  BOOST_TEST(contains(html, "<span class=\"count\">2</span><span class=\"pill EXPECTED\">"));
  BOOST_TEST(contains(html, "<span class=\"count\">0</span><span class=\"pill FAIL\">"));
  BOOST_TEST(contains(html, "<td class=\"cell EXPECTED\""));
  BOOST_TEST(!contains(html, "What did not pass"));
  const Json data = data_of(html);
  std::vector<std::string> shown;
  for (const Json& item : data.at("items")) shown.push_back(data.at("statuses").at(item.at(4).get<std::size_t>()));
  BOOST_TEST(std::count(shown.begin(), shown.end(), "EXPECTED") == 2);

  items[0].as_expected = false;  // a PASS where another verdict is recorded
  BOOST_REQUIRE(items[0].status == Status::PASS);
  const std::string other = to_html(items);
  BOOST_TEST(contains(other, "1 of 4 tensors are not as expected"));
  BOOST_TEST(contains(other, "<span class=\"count\">1</span><span class=\"pill UNEXPECTED\">"));
}

BOOST_AUTO_TEST_CASE(scripts_draw_grids_from_the_cells_of_the_page) {
  const std::string html = to_html(items_of(records_of(1)));
  // one cell to fill and one for what was not run, beside each grid
  for (const std::string id : {"by-regime", "by-eps"}) {
    const std::size_t begin = html.find("<template id=\"" + id + "-cells\">");
    BOOST_REQUIRE(begin != std::string::npos);
    const std::string cells = html.substr(begin, html.find("</template>", begin) - begin);
    for (const char* part :
         {"<td class=\"cell ", "class=\"mark\"", "class=\"ratio\"", "class=\"n\"", "<td class=\"none\">"})
      BOOST_TEST(contains(cells, part));
  }
  BOOST_TEST(contains(html, "data-name=\"chunkwise--native_eigen_ownbw\""));
}

BOOST_AUTO_TEST_CASE(a_kill_matrix_shows_what_there_is) {
  const std::string text = R"({"score": 0.99999, "mutants": [
    {"name": "no_abs", "family": "denominator", "module": "chunkwise", "description": "no absolute value",
     "detected": true, "by": {"problem": "p1", "check": "bound", "repro": "mlstm verify p1"},
     "kills": {"forget3": {"bound": [3, 4], "poison": [0, 4]}, "forget6": {"bound": [0, 4]}}},
    {"name": "got_away", "family": "mask", "detected": false, "by": null, "kills": {"forget3": {"bound": [0, 4]}}},
    {"name": "bare"}, 7],
    "rules": [{"name": "allclose", "description": "with tolerances", "mutants": {"setting": [3, 4], "suite": [31, 110]},
               "false_alarms": {"setting": [0, 9], "suite": [2, 1000]}}],
    "false_alarms": {"verdicts": 1234, "not_passed": 0, "items": []}})";
  const std::string html = to_html({}, {{text, "m.json"}});
  BOOST_TEST(fault_in_nesting(html) == "");
  BOOST_TEST(contains(html, "1 of 4 planted bugs detected (score 0.9999)"));  // never rounded up
  BOOST_TEST(contains(html, "<td class=\"kill k3\" title=\"bound 3/4, poison 0/4\">3/4</td>"));
  BOOST_TEST(contains(html, "<td class=\"kill k0\" title=\"bound 0/4\">0/4</td>"));
  BOOST_TEST(contains(html, ">31 of 110</td><td class=\"num\">0 of 9</td><td class=\"num\">2 of 1000</td>"));
  BOOST_TEST(contains(html, "False alarms: 0 of 1234 verdicts"));
  BOOST_TEST(contains(html, "mlstm verify p1"));
  BOOST_TEST(html.find("got_away") < html.find("no_abs"));  // what got away comes first
  for (const char* part : {"{}", R"({"mutants": 3, "rules": {}})", R"({"mutants": [{"kills": [1]}], "rules": [1]})"})
    BOOST_TEST(fault_in_nesting(to_html({}, {{part, "m.json"}})) == "");
  for (const char* damaged : {"", "{", "[1]"}) BOOST_CHECK_THROW(to_html({}, {{damaged, "m.json"}}), FileError);
}
