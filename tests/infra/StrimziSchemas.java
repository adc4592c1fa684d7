import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.introspect.BeanPropertyDefinition;
import com.fasterxml.jackson.databind.node.ObjectNode;

/** Prints, as JSON Schema, the fields that the Java classes of Strimzi's resources have. */
public class StrimziSchemas {
    static final ObjectMapper MAPPER = new ObjectMapper();
    static final ObjectNode DEFINITIONS = MAPPER.createObjectNode();

    public static void main(String[] names) throws Exception {
        ObjectNode all = MAPPER.createObjectNode();
        for (String name : names) {
            Class<?> kind = Class.forName(name);
            all.set(kind.getSimpleName(), schema(MAPPER.constructType(kind)));
        }
        all.set("$defs", DEFINITIONS);
        System.out.println(MAPPER.writeValueAsString(all));
    }

    static ObjectNode schema(JavaType type) {
        ObjectNode made = MAPPER.createObjectNode();
        Class<?> raw = type.getRawClass();
        if (type.isMapLikeType()) {
            made.put("type", "object").set("additionalProperties", schema(type.getContentType()));
        } else if (type.isCollectionLikeType() || type.isArrayType()) {
            made.put("type", "array").set("items", schema(type.getContentType()));
        } else if (type.isEnumType()) {
            for (Object constant : raw.getEnumConstants()) {
                made.withArray("enum").add(MAPPER.valueToTree(constant).asText());
            }
        } else if (raw == boolean.class || raw == Boolean.class) {
            made.put("type", "boolean");
        } else if (raw == int.class || raw == Integer.class || raw == long.class || raw == Long.class) {
            made.put("type", "integer");
        } else if (raw == double.class || raw == Double.class) {
            made.put("type", "number");
        } else if (raw == String.class) {
            made.put("type", "string");
        } else if (raw.getName().startsWith("io.strimzi.")) {
            define(type);
            made.put("$ref", "#/$defs/" + raw.getName());
        }
        // All else, Kubernetes' own types among it, may be anything.
        return made;
    }

    static void define(JavaType type) {
        Class<?> raw = type.getRawClass();
        String name = raw.getName();
        if (DEFINITIONS.has(name)) {
            return;
        }
        ObjectNode made = DEFINITIONS.putObject(name);
        JsonSubTypes kinds = raw.getAnnotation(JsonSubTypes.class);
        if (kinds != null) {
            String key = raw.getAnnotation(JsonTypeInfo.class).property();
            for (JsonSubTypes.Type kind : kinds.value()) {
                ObjectNode one = MAPPER.createObjectNode();
                one.withArray("allOf").add(schema(MAPPER.constructType(kind.value())));
                one.putObject("properties").putObject(key).put("const", kind.name());
                one.withArray("required").add(key);
                made.withArray("oneOf").add(one);
            }
            return;
        }
        made.put("type", "object").put("additionalProperties", false);
        ObjectNode fields = made.putObject("properties");
        for (BeanPropertyDefinition field : MAPPER.getSerializationConfig().introspect(type).findProperties()) {
            fields.set(field.getName(), schema(field.getPrimaryType()));
        }
    }
}
