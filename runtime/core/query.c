// SPDX-License-Identifier: MIT
#include "query.h"

#include <string.h>

enum { UNORDERED = 2 };

typedef enum operator_kind { AND, OR, NOT, EQ, NE, LT, LE, GT, GE, IN, RANGE, NO_OPERATOR } operator_kind;

static const struct {
  const char *name;
  uint32_t count; // elements of its array; 0: any number
} operators[] = {
    [AND] = {"and", 0}, [OR] = {"or", 0}, [NOT] = {"not", 2}, [EQ] = {"=", 3},  [NE] = {"!=", 3},      [LT] = {"<", 3},
    [LE] = {"<=", 3},   [GT] = {">", 3},  [GE] = {">=", 3},   [IN] = {"in", 3}, [RANGE] = {"range", 4}};

static operator_kind operator_of(const bdk_item *x) {
  for (int i = AND; x->kind == BDK_WIRE_STR && i < NO_OPERATOR; i++)
    if (strlen(operators[i].name) == x->len && memcmp(operators[i].name, x->data, x->len) == 0) return (operator_kind)i;
  return NO_OPERATOR;
}

static bool is_number(const bdk_item *x) {
  return x->kind == BDK_WIRE_UINT || x->kind == BDK_WIRE_INT || x->kind == BDK_WIRE_FLOAT;
}

// --- equality, as maps have it
static bool has_pairs(bdk_reader map, bdk_reader query);

// Equal by value, however encoded; maps in any order. Both sides have been checked, which bounds the depth.
static bool same_value(bdk_reader *a, bdk_reader *b) {
  bdk_reader whole_a = *a, whole_b = *b;
  bdk_item x, y;
  if (!bdk_read(a, &x) || !bdk_read(b, &y) || x.kind != y.kind) return false;
  switch (x.kind) {
  case BDK_WIRE_BOOL:
    return x.b == y.b;
  case BDK_WIRE_UINT:
  case BDK_WIRE_INT:
    return x.u == y.u;
  case BDK_WIRE_FLOAT:
    return x.f == y.f;
  case BDK_WIRE_STR:
  case BDK_WIRE_BIN:
    return x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
  case BDK_WIRE_ARRAY:
    if (x.count != y.count) return false;
    for (uint32_t i = 0; i < x.count; i++)
      if (!same_value(a, b)) return false;
    return true;
  case BDK_WIRE_MAP:
    *a = whole_a, *b = whole_b;
    return bdk_skip(a) && bdk_skip(b) && x.count == y.count && has_pairs(whole_a, whole_b);
  default:
    return true;
  }
}

// True when each pair of `query` is in `map`; both readers stand before the head of a map.
static bool has_pairs(bdk_reader map, bdk_reader query) {
  bdk_item want, have;
  if (!bdk_read(&query, &want) || !bdk_read(&map, &have) || have.kind != BDK_WIRE_MAP) return false;
  for (uint32_t i = 0; i < want.count; i++) {
    bdk_reader pair = query;
    bool found = false;
    if (!bdk_skip(&query) || !bdk_skip(&query)) return false;
    bdk_reader at = map;
    for (uint32_t j = 0; j < have.count && !found; j++) {
      bdk_reader here = at, wanted = pair;
      found = same_value(&here, &wanted) && same_value(&here, &wanted);
      if (!bdk_skip(&at) || !bdk_skip(&at)) return false;
    }
    if (!found) return false;
  }
  return true;
}

// --- order
static int three_way(bool less, bool more) { return less ? -1 : more; }

// An integer against a number with a fraction, without rounding either.
static int compare_mixed(const bdk_item *a, double d) {
  if (d != d) return UNORDERED;
  if (a->kind == BDK_WIRE_INT) { // < 0
    if (d >= 0) return -1;
    if (d < -9223372036854775808.0) return 1;
    int64_t whole = (int64_t)d; // towards 0
    return a->i != whole ? three_way(a->i < whole, true) : three_way((double)whole<d, (double)whole> d);
  }
  if (d < 0) return 1;
  if (d >= 18446744073709551616.0) return -1;
  uint64_t whole = (uint64_t)d;
  return a->u != whole ? three_way(a->u < whole, true) : three_way((double)whole<d, (double)whole> d);
}

static int compare(const bdk_item *a, const bdk_item *b) {
  if (a->kind == BDK_WIRE_STR && b->kind == BDK_WIRE_STR) {
    int r = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return r ? three_way(r < 0, true) : three_way(a->len<b->len, a->len> b->len);
  }
  if (!is_number(a) || !is_number(b)) return UNORDERED;
  if (a->kind == BDK_WIRE_FLOAT && b->kind == BDK_WIRE_FLOAT)
    return a->f != a->f || b->f != b->f ? UNORDERED : three_way(a->f<b->f, a->f> b->f);
  if (b->kind == BDK_WIRE_FLOAT) return compare_mixed(a, b->f);
  if (a->kind == BDK_WIRE_FLOAT) {
    int r = compare_mixed(b, a->f);
    return r == UNORDERED ? r : -r;
  }
  if (a->kind != b->kind) return a->kind == BDK_WIRE_INT ? -1 : 1;
  return a->kind == BDK_WIRE_INT ? three_way(a->i<b->i, a->i> b->i) : three_way(a->u<b->u, a->u> b->u);
}

static bool equal(bdk_reader a, bdk_reader b) {
  bdk_reader x = a, y = b;
  bdk_item m, n;
  if (bdk_read(&x, &m) && bdk_read(&y, &n) && is_number(&m) && is_number(&n)) return compare(&m, &n) == 0;
  return same_value(&a, &b);
}

// --- checking
typedef struct checker {
  bdk_query_fault fault;
  uint32_t terms;
} checker;

static bool wrong(checker *c, uint8_t depth, const char *why) {
  c->fault.why = why;
  c->fault.depth = depth;
  return false;
}

static bool ordered(const bdk_item *x) { return is_number(x) || x->kind == BDK_WIRE_STR; }

// What follows operator and name.
static bool check_values(checker *c, bdk_reader *r, uint8_t depth, operator_kind op) {
  bdk_item x, low = {0};
  for (uint32_t i = 3; i <= operators[op].count; i++) {
    bdk_reader here = *r;
    c->fault.at[depth] = i;
    if (!bdk_read(&here, &x) || !bdk_skip(r)) return wrong(c, depth, "not well formed");
    if (op == IN) {
      if (x.kind != BDK_WIRE_ARRAY) return wrong(c, depth + 1, "no list of values");
      c->terms += x.count;
    } else if (op != EQ && op != NE && !ordered(&x)) {
      return wrong(c, depth + 1, "no number and no text");
    }
    if (i == 3) low = x;
    if (i == 4 && is_number(&low) != is_number(&x)) return wrong(c, depth + 1, "not of the other's kind");
  }
  c->terms++;
  return true;
}

static bool check(checker *c, bdk_reader *r, uint8_t depth) {
  bdk_reader whole = *r;
  bdk_item x, op;
  if (depth >= BDK_WIRE_DEPTH_MAX) return wrong(c, depth, "too deep");
  if (!bdk_read(r, &x)) return wrong(c, depth, "not well formed");
  if (x.kind == BDK_WIRE_MAP) {
    *r = whole;
    c->terms += x.count;
    return bdk_skip(r) || wrong(c, depth, "not well formed");
  }
  if (x.kind != BDK_WIRE_ARRAY) return wrong(c, depth, "neither map nor list");
  c->fault.at[depth] = 1;
  if (x.count == 0 || !bdk_read(r, &op)) return wrong(c, depth, "an empty list");
  operator_kind kind = operator_of(&op);
  if (kind == NO_OPERATOR) return wrong(c, depth + 1, "no such operator");
  if (operators[kind].count && operators[kind].count != x.count) return wrong(c, depth, "too few or too many");
  if (kind > NOT) {
    c->fault.at[depth] = 2;
    if (!bdk_read(r, &op) || op.kind != BDK_WIRE_STR) return wrong(c, depth + 1, "no property's name");
    return check_values(c, r, depth, kind);
  }
  for (uint32_t i = 2; i <= x.count; i++) {
    c->fault.at[depth] = i;
    if (!check(c, r, depth + 1)) return false;
  }
  return true;
}

int bdk_query_check(const uint8_t *query, size_t len, bdk_query_fault *fault) {
  checker c = {0};
  bdk_reader r = {query, query + len};
  bool ok = check(&c, &r, 0) && (r.p == r.end || wrong(&c, 0, "not well formed"));
  if (ok && c.terms > BDK_QUERY_TERMS_MAX) ok = wrong(&c, 0, "too many comparisons");
  if (!ok && fault) *fault = c.fault;
  return ok ? (int)c.terms : -1;
}

// --- asking
// The value of a property, to read on from; false where there is none.
static bool find(bdk_reader props, const bdk_item *name, bdk_reader *out) {
  bdk_item map, key;
  if (!bdk_read(&props, &map) || map.kind != BDK_WIRE_MAP) return false;
  for (uint32_t i = 0; i < map.count; i++) {
    if (!bdk_read(&props, &key)) return false;
    if (key.kind == BDK_WIRE_STR && key.len == name->len && memcmp(key.data, name->data, key.len) == 0) {
      *out = props;
      return true;
    }
    if (!bdk_skip(&props)) return false;
  }
  return false;
}

static bool among(bdk_reader value, bdk_reader list) {
  bdk_item x;
  if (!bdk_read(&list, &x)) return false;
  for (uint32_t i = 0; i < x.count; i++) {
    if (equal(value, list)) return true;
    if (!bdk_skip(&list)) return false;
  }
  return false;
}

// Operator and name were read.
static bool holds(operator_kind op, bdk_reader props, const bdk_item *name, bdk_reader rest) {
  bdk_reader value;
  if (!find(props, name, &value)) return op == NE;
  if (op == EQ || op == NE) return equal(value, rest) == (op == EQ);
  if (op == IN) return among(value, rest);
  bdk_item have, want;
  if (!bdk_read(&value, &have) || !bdk_read(&rest, &want)) return false;
  int r = compare(&have, &want);
  if (r == UNORDERED) return false;
  if (op == LT) return r < 0;
  if (op == LE) return r <= 0;
  if (op == GT) return r > 0;
  if (op == GE || r < 0) return r >= 0;
  return bdk_read(&rest, &want) && compare(&have, &want) <= 0;
}

static bool ask(bdk_reader *r, bdk_reader props) {
  bdk_reader whole = *r;
  bdk_item x, op, name;
  if (!bdk_read(r, &x)) return false;
  if (x.kind == BDK_WIRE_MAP) {
    *r = whole;
    return bdk_skip(r) && has_pairs(props, whole);
  }
  if (!bdk_read(r, &op)) return false;
  operator_kind kind = operator_of(&op);
  if (kind > NOT) {
    bool result = bdk_read(r, &name) && holds(kind, props, &name, *r);
    *r = whole;
    return bdk_skip(r) && result;
  }
  bool result = kind == AND;
  for (uint32_t i = 1; i < x.count; i++) {
    bool one = ask(r, props);
    if (kind == NOT) result = !one;
    if (kind != NOT && one != result) { // it decides
      *r = whole;
      return bdk_skip(r) && one;
    }
  }
  return result;
}

bool bdk_query_matches(const uint8_t *query, size_t len, const uint8_t *props, size_t props_len) {
  bdk_reader r = {query, query + len};
  return ask(&r, (bdk_reader){props, props + props_len});
}
