-- SPDX-License-Identifier: MIT
-- Writes the file that an option names, of a list of texts; what: they are. true, or nil, message, code.
return function(path, texts, what)
  local file, err = io.open(path, "wb")
  if not file then return nil, ("cannot write the %s: %s; is the directory there?"):format(what, err), "invalid" end
  local ok = true
  for _, text in ipairs(texts) do
    if ok then ok, err = file:write(text) end
  end
  local closed, why = file:close()
  if ok and closed then return true end
  return nil, ("cannot write the %s %s: %s"):format(what, path, err or why), "invalid"
end
